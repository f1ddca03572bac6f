"""Handles Django's signals about user accounts.

The handlers refuse reserved usernames. When an account is deleted or deactivated, the handlers drop
definitions, which describe what modules export (`forget_reader`). Access to realms doesn't depend
on the handlers, because each request looks up the permissions.
"""

from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser
from django.db import transaction
from django.db.models.signals import post_save, pre_delete, pre_save

from definitions.lookup import DefinitionLookup
from realms.access.usernames import check_username
from realms.content.changes import Change, raise_change
from realms.models import Realm


def connect() -> None:
    """Connects the signal handlers. Adds a validator to the username field, so that forms and
    commands reject reserved usernames."""
    model = get_user_model()
    field: Any = model._meta.get_field(model.USERNAME_FIELD)
    # The field belongs to another app, and a validator in the field's declaration would need a
    # migration of that app. So the validator is added at run time.
    if check_username not in field.validators:
        field.validators.append(check_username)
    pre_save.connect(_check_name, sender=model)
    post_save.connect(_on_save, sender=model)
    pre_delete.connect(_on_delete, sender=model)


def _check_name(instance: Any, raw: bool = False, **_: Any) -> None:
    """Raises ValidationError for an invalid or reserved name, unless the account has that name
    already. Accepts all names from a fixture (`raw`)."""
    model = type(instance)
    name = instance.get_username()
    before = model._default_manager.filter(pk=instance.pk).values_list(
        model.USERNAME_FIELD, flat=True
    )
    if not raw and before.first() != name:
        check_username(name)


def _on_save(instance: Any, created: bool, **_: Any) -> None:
    if not created and not instance.is_active:
        forget_reader(instance)


def _on_delete(instance: Any, **_: Any) -> None:
    forget_reader(instance)


def forget_reader(account: AbstractBaseUser) -> None:
    """Drops the definitions that were built for an account, and all definitions that were built
    from realms in which the account has permissions."""
    shared = Realm.objects.filter(permissions__account=account.pk).order_by("url")
    with transaction.atomic():
        raise_change(
            *(
                Change.of(realm, by="deletion or deactivation of an account", rights=True)
                for realm in shared
            )
        )
        DefinitionLookup().forget_reader(f"{account.pk} ")
