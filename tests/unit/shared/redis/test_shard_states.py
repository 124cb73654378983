"""What a process knows of the masters of a cluster."""

from shared.redis.cluster.shard_states import ShardStates

A, B, C = (("a", 1), ("b", 1), ("c", 1))


def three() -> ShardStates:
    states = ShardStates()
    states.compare([A, B, C], 0.0)
    return states


def test_a_shard_without_an_answer_is_away_until_it_answers():
    states, dropped = three(), []
    states.on_away(dropped.append)

    assert states.note_away(B)
    assert not states.note_away(B), "only the first one is news"
    assert states.is_away(B) and not states.is_away(A) and states.serving == 2
    assert dropped == [B]

    assert states.note_answer(B, 0.01, 5.0)
    assert not states.note_answer(B, 0.01, 6.0)
    assert not states.has_away and states.serving == 3
    assert states.back_at_s(B) == 5.0 and states.back_at_s(A) is None


def test_a_server_that_takes_over_from_a_shard_that_is_away_counts_as_back():
    states = three()
    states.note_away(B)

    states.compare([A, ("promoted", 1), C], 7.0)

    assert states.back_at_s(("promoted", 1)) == 7.0
    assert not states.is_away(B) and states.serving == 3 and B not in states.by_address


def test_a_new_shard_was_never_away():
    states = three()

    states.compare([A, B, C, ("new", 1)], 7.0)

    assert states.back_at_s(("new", 1)) is None


def test_a_closed_pipeline_hears_of_no_shard():
    states, dropped = three(), []
    forget = states.on_away(dropped.append)
    forget()

    states.note_away(A)

    assert dropped == []


def test_of_a_former_master_nothing_is_recorded():
    states = three()
    states.compare([A, C], 1.0)

    states.note_error(B)
    assert not states.note_away(B) and not states.note_answer(B, 0.1, 2.0)

    assert set(states.by_address) == {A, C} and states.serving == 2
