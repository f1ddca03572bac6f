"""Stores the definitions of modules, and the counters that prevent a build from storing outdated
definitions. The definitions of a module describe the card types that the module exports."""

from typing import ClassVar

import pgtrigger
from django.contrib.postgres.indexes import GinIndex
from django.db import models

#: Refuses the row of a build if the global counter, or the counter of the row's realm or module,
#: was raised after the build began. The row has the values of these counters from before the build.
#:
#: The trigger takes share locks on the three counters. A clear raises counters, and then deletes
#: rows. Because of the locks, an insert and a clear wait for each other. A clear that has waited
#: deletes the new row. If an insert has waited for a clear, the trigger refuses the row.
REFUSE_LATE_BUILD = pgtrigger.Trigger(
    name="refuse_late_build",
    operation=pgtrigger.Insert | pgtrigger.Update,
    when=pgtrigger.Before,
    declare=[("standing", "integer")],
    func="""
        SELECT count(*) INTO standing FROM (
            SELECT 1 FROM definitions_cachegeneration g
            WHERE (g.scope = 'global' AND g.key = '' AND g.generation = NEW.global_generation)
               OR (g.scope = 'realm' AND g.key = NEW.realm_url
                   AND g.generation = NEW.realm_generation)
               OR (g.scope = 'module' AND g.key = NEW.module_url
                   AND g.generation = NEW.module_generation)
            FOR SHARE
        ) unmoved;
        IF standing < 3 THEN
            RETURN NULL;
        END IF;
        RETURN NEW;
    """,
)


class CacheGeneration(models.Model):
    """A counter that invalidations of definitions raise. There is a global counter, a counter for
    each realm, and a counter for each module."""

    class Scope(models.TextChoices):
        GLOBAL = "global"
        REALM = "realm"
        MODULE = "module"

    scope = models.CharField(max_length=10, choices=Scope)
    key = models.TextField(blank=True, help_text="the realm's or module's URL; empty for global")
    generation = models.PositiveBigIntegerField(default=0)
    bumped_at = models.DateTimeField(auto_now=True)
    bumped_by = models.TextField(
        blank=True,
        db_default="",
        help_text="what last raised the counter: a publish, a write, a clear",
    )

    class Meta:
        constraints = [models.UniqueConstraint(fields=["scope", "key"], name="one_counter_per_key")]
        verbose_name = "definitions counter"

    def __str__(self) -> str:
        return f"{self.scope} {self.key} {self.generation}"


class Definition(models.Model):
    """The definitions of the card types that one module exports, or the error of their build. In
    the scope `realm-auth`, only one user may read the row."""

    class Scope(models.TextChoices):
        PUBLIC = "public"
        REALM_AUTH = "realm-auth"

    module_url = models.TextField(help_text="the module's URL, with its extension")
    realm_url = models.TextField(db_index=True)
    scope = models.CharField(max_length=10, choices=Scope, default=Scope.PUBLIC)
    reader = models.CharField(
        max_length=150,
        blank=True,
        help_text="the only caller who may read the definitions, in the scope realm-auth",
    )
    definitions = models.JSONField(
        null=True, help_text="for each export of the module, its definition"
    )
    error = models.JSONField(null=True)
    dependencies = models.JSONField(
        default=list, help_text="the URLs of the modules from which the definitions were built"
    )
    realm_urls = models.JSONField(
        default=list, help_text="the URLs of the realms of the module and its dependencies"
    )
    global_generation = models.PositiveBigIntegerField()
    realm_generation = models.PositiveBigIntegerField()
    module_generation = models.PositiveBigIntegerField()
    built_at = models.DateTimeField()
    build_ms = models.PositiveIntegerField()
    expires_at = models.DateTimeField(
        null=True, help_text="when a definition that failed is built again"
    )

    class Meta:
        db_table = "definitions"
        verbose_name = "module's definitions"
        verbose_name_plural = "definitions"
        constraints = [
            models.UniqueConstraint(
                fields=["module_url", "scope", "reader"], name="one_definition_per_module_scope"
            ),
            models.CheckConstraint(
                condition=models.Q(scope="public", reader="")
                | (models.Q(scope="realm-auth") & ~models.Q(reader="")),
                name="definition_is_everyones_or_somebodys",
            ),
        ]
        indexes = [GinIndex(fields=["realm_urls"], name="definitions_by_realm")]
        triggers: ClassVar = [REFUSE_LATE_BUILD]

    def __str__(self) -> str:
        return self.module_url
