"""Schedule-free SGD (Defazio et al. 2024, algorithm 1) for tests: it counts on being in the right mode, and says so.

y = (1 - b) z + b x is trained, z -= lr g(y), x += (z - x) / t is what counts. The parameters are y in training, else x.
"""

from __future__ import annotations

import torch

BETA = 0.9
modes: list[str] = []


class AveragingSGD(torch.optim.Optimizer):
    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr, "training": False, "count": 0})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            assert group["training"], "a step outside training"
            group["count"] += 1
            for p in (p for p in group["params"] if p.grad is not None):
                state = self.state[p]
                z = state.setdefault("z", p.clone())
                x = state.setdefault("x", p.clone())
                z -= group["lr"] * p.grad
                x += (z - x) / group["count"]
                p.copy_((1 - BETA) * z + BETA * x)
        modes.append("step")

    def train(self):
        self._turn(True, lambda state: (1 - BETA) * state["z"] + BETA * state["x"])

    def eval(self):
        self._turn(False, lambda state: state["x"])

    @torch.no_grad()
    def _turn(self, training, wanted):
        modes.append("train" if training else "eval")
        for group in self.param_groups:
            if group["training"] is not training:
                group["training"] = training
                for p in (p for p in group["params"] if p in self.state):
                    p.copy_(wanted(self.state[p]))
