from django.apps import AppConfig


class RealmsConfig(AppConfig):
    name = "realms"
    verbose_name = "Realms"

    def ready(self) -> None:
        from django.db.models.signals import post_migrate

        from realms import checks  # noqa: F401  registers them
        from realms.access import accounts
        from realms.content import changes
        from realms.publishing import effects
        from realms.publishing.bootstrap import sync_base_realm

        accounts.connect()
        changes.connect(effects.carry_out)
        post_migrate.connect(sync_base_realm, sender=self)
