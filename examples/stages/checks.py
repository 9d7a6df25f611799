"""How the programs of the tour check what they did."""


def check(facts, **expected):
    """Raise AssertionError unless facts holds every expected value."""
    for name, value in expected.items():
        if facts[name] != value:
            raise AssertionError(f"{name} is {facts[name]}, expected {value}")
