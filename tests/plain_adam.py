"""Adam for one Tensor, step by step, as the fast searches use it."""


class PlainAdam:
    """Kingma and Ba 2015, arXiv 1412.6980, algorithm 1."""

    def __init__(self, rate=0.1):
        self.rate = rate
        self.first, self.second, self.steps = 0.0, 0.0, 0

    def step(self, gradient):
        self.steps += 1
        self.first = 0.5 * self.first + 0.5 * gradient
        self.second = 0.9 * self.second + 0.1 * gradient**2
        first = self.first / (1 - 0.5**self.steps)
        second = self.second / (1 - 0.9**self.steps)
        return -self.rate * first / (second**0.5 + 1e-8)
