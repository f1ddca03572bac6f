"""Makes the hashing of passwords fast for tests."""

from django.contrib.auth.hashers import PBKDF2PasswordHasher


class QuickHasher(PBKDF2PasswordHasher):
    """Hashes passwords with PBKDF2 and only one iteration. A process with the real settings can
    also check these hashes."""

    iterations = 1
