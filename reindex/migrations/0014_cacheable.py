from django.db import migrations, models


class Migration(migrations.Migration):
    """Renames a field, but not its column, nor the index of it: the previous release runs beside
    this one during an upgrade and uses them under these names."""

    dependencies = [
        ('reindex', '0013_random_lease_numbers'),
    ]

    operations = [
        migrations.SeparateDatabaseAndState(
            state_operations=[
                migrations.RemoveIndex(model_name='indexedcard', name='card_not_settled'),
                migrations.RenameField(
                    model_name='indexedcard', old_name='settled', new_name='cacheable'
                ),
                migrations.AlterField(
                    model_name='indexedcard',
                    name='cacheable',
                    field=models.BooleanField(db_column='settled', default=False, help_text='whether nothing but these can change it, so it may be carried over'),
                ),
                migrations.AddIndex(
                    model_name='indexedcard',
                    index=models.Index(condition=models.Q(('cacheable', False), ('current', True)), fields=['realm_url'], name='card_not_settled'),
                ),
            ],
        ),
    ]
