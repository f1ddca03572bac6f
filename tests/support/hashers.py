"""Passwords of tests: the real form, made fast."""

from django.contrib.auth.hashers import PBKDF2PasswordHasher


class QuickHasher(PBKDF2PasswordHasher):
    """One iteration: the processes that tests start, with the real settings, can check it too."""

    iterations = 1
