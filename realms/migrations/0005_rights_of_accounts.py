"""Rights refer to accounts, and everyone and who is signed in are no usernames."""

import django.contrib.auth.models
import django.db.models.deletion
import pgtrigger.compiler
import pgtrigger.migrations
from django.conf import settings
from django.db import migrations, models


def names_of_now(apps, schema_editor):
    """For all that is known, an account has always had its name."""
    AccountName = apps.get_model('realms', 'AccountName')
    User = apps.get_model(settings.AUTH_USER_MODEL)
    AccountName.objects.bulk_create(
        [AccountName(account_id=user.pk, since=user.date_joined) for user in User.objects.all()],
        ignore_conflicts=True,
    )


def refer_to_accounts(apps, schema_editor):
    """Rows of users that there are refer to them; those of users that are gone are dropped.

    A row of `*` or `users` that makes an owner was made for an account of that name, where there is
    one. No audience owns a realm.
    """
    RealmPermission = apps.get_model('realms', 'RealmPermission')
    User = apps.get_model(settings.AUTH_USER_MODEL)
    keys = dict(User.objects.values_list('username', 'pk'))
    audiences = {'*': 'everyone', 'users': 'signed-in'}
    for row in RealmPermission.objects.all():
        row.audience = audiences.get(row.username)
        if row.audience is None or (row.realm_owner and row.username in keys):
            row.audience, row.account_id = None, keys.get(row.username)
            if row.account_id is None:
                row.delete()
                continue
        row.realm_owner = row.realm_owner and row.audience is None
        row.save()


class Migration(migrations.Migration):

    dependencies = [
        ('auth', '0012_alter_user_first_name_max_length'),
        ('realms', '0004_history_from'),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.CreateModel(
            name='AccountName',
            fields=[
                ('account', models.OneToOneField(on_delete=django.db.models.deletion.CASCADE, primary_key=True, related_name='+', serialize=False, to=settings.AUTH_USER_MODEL)),
                ('since', models.DateTimeField()),
            ],
        ),
        migrations.CreateModel(
            name='Account',
            fields=[
            ],
            options={
                'proxy': True,
                'indexes': [],
                'constraints': [],
            },
            bases=('auth.user',),
            managers=[
                ('objects', django.contrib.auth.models.UserManager()),
            ],
        ),
        pgtrigger.migrations.AddTrigger(
            model_name='account',
            trigger=pgtrigger.compiler.Trigger(name='named_since', sql=pgtrigger.compiler.UpsertTriggerSql(func="\n        IF TG_OP = 'INSERT' OR NEW.username IS DISTINCT FROM OLD.username THEN\n            INSERT INTO realms_accountname (account_id, since)\n            VALUES (NEW.id, clock_timestamp())\n            ON CONFLICT (account_id) DO UPDATE SET since = EXCLUDED.since;\n        END IF;\n        RETURN NULL;\n    ", hash='cca785e2a319b46aad9e0f859abe00957990e90e', operation='INSERT OR UPDATE OF "username"', pgid='pgtrigger_named_since_77dc5', table='auth_user', when='AFTER')),
        ),
        migrations.RunPython(names_of_now, migrations.RunPython.noop),
        migrations.RemoveConstraint(
            model_name='realmpermission',
            name='one_row_per_realm_user',
        ),
        migrations.AddField(
            model_name='realmpermission',
            name='account',
            field=models.ForeignKey(blank=True, null=True, on_delete=django.db.models.deletion.CASCADE, related_name='realm_permissions', to=settings.AUTH_USER_MODEL),
        ),
        migrations.AddField(
            model_name='realmpermission',
            name='audience',
            field=models.CharField(blank=True, choices=[('everyone', 'everyone'), ('signed-in', 'everyone who is signed in')], help_text='instead of an account', max_length=10, null=True),
        ),
        migrations.RunPython(refer_to_accounts),
        # A table with foreign keys still to be checked can't be altered.
        migrations.RunSQL('SET CONSTRAINTS ALL IMMEDIATE', migrations.RunSQL.noop),
        migrations.RemoveField(
            model_name='realmpermission',
            name='username',
        ),
        migrations.AddConstraint(
            model_name='realmpermission',
            constraint=models.UniqueConstraint(condition=models.Q(('account__isnull', False)), fields=('realm', 'account'), name='one_row_per_realm_account'),
        ),
        migrations.AddConstraint(
            model_name='realmpermission',
            constraint=models.UniqueConstraint(condition=models.Q(('audience__isnull', False)), fields=('realm', 'audience'), name='one_row_per_realm_audience'),
        ),
        migrations.AddConstraint(
            model_name='realmpermission',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('account__isnull', False), ('audience__isnull', True)), models.Q(('account__isnull', True), ('audience__in', ['everyone', 'signed-in']), ('realm_owner', False)), _connector='OR'), name='permission_of_an_account_or_an_audience'),
        ),
    ]
