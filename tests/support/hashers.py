"""A fast password hasher for tests."""

from django.contrib.auth.hashers import PBKDF2PasswordHasher


class QuickHasher(PBKDF2PasswordHasher):
    """PBKDF2 with one iteration. Processes with the real settings can check such hashes, too."""

    iterations = 1
