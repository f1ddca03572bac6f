from django.apps import AppConfig


class ReindexConfig(AppConfig):
    name = "reindex"
    verbose_name = "Reindex"
