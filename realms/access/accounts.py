"""What happens to an account concerns its rights: names are checked, and rights end with it.

Rights are looked up at every request, so nothing here is needed to refuse anybody. It keeps names
that mean something else from being taken, and drops what was built for a reader who is one no more.
"""

from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import AbstractBaseUser
from django.db import transaction
from django.db.models.signals import post_save, pre_delete, pre_save

from definitions.lookup import DefinitionLookup
from notifications.channels import REGISTRY_KEY
from notifications.emit import bump_at_commit
from realms.access.usernames import check_username
from realms.content.changes import Change, raise_change
from realms.models import Realm


def connect() -> None:
    """Has accounts watched from now on, and their forms and commands check names."""
    model = get_user_model()
    field: Any = model._meta.get_field(model.USERNAME_FIELD)
    # In the list that Django keeps of the field's validators, and not in its declaration, which
    # migrations of another app follow.
    if check_username not in field.validators:
        field.validators.append(check_username)
    pre_save.connect(_check_name, sender=model)
    post_save.connect(_deactivated, sender=model)
    pre_delete.connect(_gone, sender=model)


def _check_name(instance: Any, raw: bool = False, **_: Any) -> None:
    """Raises ValidationError. An account that has had its name for long may keep it."""
    model = type(instance)
    name = instance.get_username()
    before = model._default_manager.filter(pk=instance.pk).values_list(
        model.USERNAME_FIELD, flat=True
    )
    if not raw and before.first() != name:
        check_username(name)


def _deactivated(instance: Any, created: bool, **_: Any) -> None:
    if not created and not instance.is_active:
        forget_reader(instance)


def _gone(instance: Any, **_: Any) -> None:
    forget_reader(instance)


def forget_reader(account: AbstractBaseUser) -> None:
    """Drops what was built for an account, and from the realms that are shared with it."""
    shared = Realm.objects.filter(permissions__account=account.pk).order_by("url")
    with transaction.atomic():
        raise_change(*(Change.of(realm, rights=True) for realm in shared))
        DefinitionLookup().forget_reader(f"{account.pk} ")
        bump_at_commit([REGISTRY_KEY])
