"""How many examples a property is tried on: a quarter in a plain run, all of them in `make test-long`."""

from hypothesis import settings

# Killing a mutant may take the very example that a quarter leaves out.
THOROUGH = ("thorough", "quick-to-fail")


def examples(count: int) -> settings:
    """Settings of a property that `make test-long` tries on so many examples, always the same ones."""
    few = max(10, count // 4)
    thorough = settings.get_current_profile_name() in THOROUGH
    return settings(deadline=None, derandomize=True, max_examples=count if thorough else min(count, few))
