"""Sketches on arrays."""

import numpy
import pytest

from sketchkv import CountMin, CountSketch, Error, Race, SimHash, hamming

KEYS = numpy.random.default_rng(0).zipf(1.5, 10_000).astype(numpy.uint64)


def test_count_min_is_an_upper_bound():
    sketch = CountMin.for_error(0.01, 0.01)
    sketch.update(KEYS)
    keys, counts = numpy.unique(KEYS, return_counts=True)
    estimates = sketch.query(keys)
    assert (estimates >= counts).all() and (estimates <= counts + 0.01 * len(KEYS)).mean() > 0.98
    assert (CountMin.from_bytes(sketch.to_bytes()).query(keys) == estimates).all()


def test_count_sketch_takes_amounts_of_either_sign():
    sketch = CountSketch(4096, 5)
    keys = numpy.arange(100, dtype=numpy.uint64)
    amounts = numpy.arange(-50, 50)
    sketch.update(keys, amounts)
    assert (sketch.query(keys) == amounts).all()


def test_sketches_merge():
    one, two, both = (CountMin(512, 4) for _ in range(3))
    one.update(KEYS[:5000])
    two.update(KEYS[5000:])
    both.update(KEYS)
    one.merge(two)
    assert (one.query(KEYS) == both.query(KEYS)).all()
    with pytest.raises(Error, match="cannot combine"):
        one.merge(CountMin(512, 4, seed=1))


def test_simhash_tells_angles():
    random = numpy.random.default_rng(1)
    vectors = random.standard_normal((50, 32)).astype(numpy.float32)
    for projection in ("gaussian", "orthogonal", "hadamard"):
        hash = SimHash(32, 1024, projection=projection)
        codes = hash.encode(vectors)
        assert codes.shape == (50, 16)
        cosines = vectors @ vectors[0] / numpy.linalg.norm(vectors, axis=1) / numpy.linalg.norm(vectors[0])
        angles = [hash.angle(int(distance)) for distance in hamming(codes[0], codes)]
        assert numpy.abs(angles - numpy.arccos(cosines.clip(-1, 1))).max() < 0.3


def test_race_estimates_a_density():
    random = numpy.random.default_rng(2)
    vectors = random.standard_normal((200, 16)).astype(numpy.float32)
    race = Race(512, 2, 16)
    race.add(vectors, numpy.full(200, 0.5, dtype=numpy.float32))
    unit = vectors / numpy.linalg.norm(vectors, axis=1, keepdims=True)
    angles = numpy.arccos((unit @ unit.T).clip(-1, 1))
    expected = (0.5 * (1 - angles / numpy.pi) ** 2).sum(axis=1)
    numpy.testing.assert_allclose(race.query(vectors), expected, rtol=0.15)
    before = race.query(vectors)
    race.decay(0.5)
    numpy.testing.assert_allclose(race.query(vectors), before / 2, rtol=1e-5)


def test_what_does_not_fit_is_refused():
    with pytest.raises(Error, match="width is 0"):
        CountMin(0, 4)
    with pytest.raises(ValueError, match="one for each key"):
        CountMin(16, 4).update(KEYS, numpy.ones(3, dtype=numpy.uint64))
    with pytest.raises(ValueError, match="strided"):
        CountMin(16, 4).update(KEYS[::2])
    with pytest.raises(TypeError):
        CountMin(16, 4).update(KEYS.astype(float))
    with pytest.raises(ValueError, match="where the sketch takes 8"):
        Race(4, 4, 8).add(numpy.zeros((2, 9), dtype=numpy.float32))
    with pytest.raises(Error, match="no readable"):
        CountSketch.from_bytes(b"nothing")
