from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("reindex", "0003_carry_over")]

    operations = [
        migrations.AddField(
            model_name="reindexjob",
            name="addresses",
            field=models.JSONField(
                db_default={},
                default=dict,
                help_text="where the pages of the other realms that it reads are",
            ),
        ),
    ]
