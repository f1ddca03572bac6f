"""Makes the hashing of passwords fast for tests."""

from django.contrib.auth.hashers import PBKDF2PasswordHasher


class QuickHasher(PBKDF2PasswordHasher):
    """Hashes by PBKDF2 with one iteration. Processes with the real settings can check these hashes,
    too."""

    iterations = 1
