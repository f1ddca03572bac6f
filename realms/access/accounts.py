"""Handles Django's signals about accounts. Refuses reserved usernames. Drops the definitions built
for an account when the account is deleted or deactivated.

Access to realms doesn't depend on these handlers, because each request looks up the permissions.
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
    """Connects the signal handlers, and lets forms and commands reject reserved usernames."""
    model = get_user_model()
    field: Any = model._meta.get_field(model.USERNAME_FIELD)
    # The validator is appended here, because the field's declaration is part of another app's
    # migrations.
    if check_username not in field.validators:
        field.validators.append(check_username)
    pre_save.connect(_check_name, sender=model)
    post_save.connect(_on_save, sender=model)
    pre_delete.connect(_on_delete, sender=model)


def _check_name(instance: Any, raw: bool = False, **_: Any) -> None:
    """Raises ValidationError for a reserved name, unless the account has that name already."""
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
    """Drops the definitions built for an account, and the definitions built from realms that are
    shared with the account."""
    shared = Realm.objects.filter(permissions__account=account.pk).order_by("url")
    with transaction.atomic():
        raise_change(*(Change.of(realm, by="account removed", rights=True) for realm in shared))
        DefinitionLookup().forget_reader(f"{account.pk} ")
