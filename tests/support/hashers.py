"""Makes the hashing of passwords fast for tests."""

from django.contrib.auth.hashers import PBKDF2PasswordHasher


class QuickHasher(PBKDF2PasswordHasher):
    """Hashes passwords with PBKDF2 in only one iteration. A hash contains its number of iterations,
    so processes without the settings of the tests, such as replicas, can check it too."""

    iterations = 1
