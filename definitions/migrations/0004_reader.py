"""Drops the definitions that were built for single users; they are built again for the users'
accounts."""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('definitions', '0003_whose_definition_it_is'),
    ]

    operations = [
        migrations.RemoveConstraint(
            model_name='definition',
            name='one_definition_per_module_scope',
        ),
        migrations.RemoveConstraint(
            model_name='definition',
            name='definition_is_everyones_or_somebodys',
        ),
        migrations.RunSQL(
            "DELETE FROM definitions WHERE scope = 'realm-auth'", migrations.RunSQL.noop
        ),
        migrations.RenameField(
            model_name='definition',
            old_name='username',
            new_name='reader',
        ),
        migrations.AlterField(
            model_name='definition',
            name='reader',
            field=models.CharField(blank=True, help_text='for whom, in the scope realm-auth', max_length=150),
        ),
        migrations.AddConstraint(
            model_name='definition',
            constraint=models.UniqueConstraint(fields=('module_url', 'scope', 'reader'), name='one_definition_per_module_scope'),
        ),
        migrations.AddConstraint(
            model_name='definition',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('reader', ''), ('scope', 'public')), models.Q(('scope', 'realm-auth'), models.Q(('reader', ''), _negated=True)), _connector='OR'), name='definition_is_everyones_or_somebodys'),
        ),
    ]
