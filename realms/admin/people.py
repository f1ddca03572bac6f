"""Defines the admin's pages of users and groups. The pages have the style of Unfold, the library
that styles the whole admin."""

from typing import TYPE_CHECKING, Any, TypeAlias

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group, User
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

if TYPE_CHECKING:
    AnyUserAdmin: TypeAlias = UserAdmin[Any]

    class Skin:
        """The type checker sees this class in place of Unfold's ModelAdmin, which has no types."""
else:
    from unfold.admin import ModelAdmin as Skin

    AnyUserAdmin = UserAdmin

admin.site.unregister(User)
admin.site.unregister(Group)


@admin.register(User)
class SkinnedUserAdmin(AnyUserAdmin, Skin):
    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm


@admin.register(Group)
class SkinnedGroupAdmin(GroupAdmin, Skin):
    pass
