"""Config files: a small one, and a Hypothesis strategy for all of them."""

from hypothesis import strategies as st

from distseq.config.keys import LARGEST, keys
from distseq.config.schema import WORKERS, Config, LearnerConfig, PoolConfig, RunConfig, SchedulerConfig

LEARNER = {"name": "a", "model": "m:M", "data": "text:x", "batch": 4}
WHOLE = {"learner": [LEARNER]}


def one_of(table: type, key: str) -> st.SearchStrategy[str]:
    """What a key may be."""
    return st.sampled_from(next(one.meaning.values for one in keys(table) if one.name == key))


awkward = st.sampled_from(
    ["", '"', "\\", "\n\t\r\b\f", "\x00\x1f\x7f", "é", "\u2028", "\ufffe", "😀", "# x", "''", '"""']
)
texts = awkward | st.text()
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,8}", fullmatch=True)
numbers = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False)
values = st.recursive(
    texts | numbers | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
natural = st.integers(1, LARGEST)
arguments = st.dictionaries(texts, values, max_size=3)
learners = st.builds(
    LearnerConfig,
    name=names,
    model=texts,
    data=texts,
    batch=natural,
    model_args=arguments,
    data_args=arguments,
    evaluation=st.none() | texts,
    evaluation_args=arguments,
    optimizer=texts,
    optimizer_args=arguments,
    schedule=st.none() | texts,
    schedule_args=arguments,
    groups=st.lists(arguments, max_size=2),
    clip=st.none() | st.floats(0, exclude_min=True, allow_infinity=False),
    steps=st.none() | natural,
)
configs = st.builds(
    Config,
    st.lists(learners, min_size=1, max_size=3, unique_by=lambda one: one.name).map(tuple),
    st.builds(
        RunConfig,
        steps=natural,
        seed=st.integers(0, LARGEST),
        checks=st.integers(0, 10**6),
        dtype=one_of(RunConfig, "dtype"),
    ),
    st.builds(
        PoolConfig,
        kind=one_of(PoolConfig, "kind"),
        workers=st.integers(1, WORKERS),
        hosts=st.none() | st.integers(1, WORKERS),
        address=texts,
        delays=texts,
        unfinished=one_of(PoolConfig, "unfinished"),
        compute=one_of(PoolConfig, "compute"),
    ),
    st.builds(
        SchedulerConfig,
        scheme=texts,
        closing=one_of(SchedulerConfig, "closing"),
        cutoff=st.floats(allow_nan=False),
        mu=st.floats(allow_nan=False),
    ),
)
