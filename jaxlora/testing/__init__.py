"""Batteries that a method of your own can be put through, as ours are."""

from jaxlora.testing.merges import Battery as Battery
from jaxlora.testing.merges import check_merge as check_merge
from jaxlora.testing.merges import small_library as small_library
from jaxlora.testing.merges import violations as violations
