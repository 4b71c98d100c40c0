"""Robustness by gradient alignment over forgery domains."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor, nn

from optimizers import checks
from optimizers.base import Objective, Rule
from optimizers.derivatives import check_twice_differentiable
from optimizers.registry import RegistryError
from optimizers.vector import TINY, Vector


@dataclass
class RoGA(Rule):
    """RoGA (Qiu et al. 2025, arXiv 2505.20653, eq. 3-6): every domain perturbed by its own gradient, and aligned with it.

    With g_i = grad L(theta; D_i) and e_i = rho g_i / ||g_i|| the objective is the mean over the K domains of
    L(theta + e_i; D_i) - alpha <grad L(theta + e_i; D_i), g_i>, where e_i and the second g_i are held constant. Its gradient is

        exact        (1/K) sum_i grad L_i(theta + e_i) - alpha H_i(theta + e_i) g_i      (double backward)
        first order  (1/K) sum_i grad L_i(theta + e_i - alpha g_i)                       (eq. 6; two passes a domain)

    and the two differ by O(alpha^2), whatever rho is. The shift is colinear with g_i: first-order RoGA is per-domain SAM of radius
    rho - alpha ||g_i||. `diagnostics` holds alpha ||g_i|| / rho of each domain; above 1 the ascent has become a descent.

    Minimising the alignment term rewards LARGE gradients, the opposite of a gradient penalty, and has no lower bound.

    Every domain is forwarded by itself in each of its passes, because only then are its gradients gradients of one function;
    BatchNorm's running statistics therefore move K times a step. Only `align: global` holds the K gradients g_i in memory together.

    Attributes:
        rho: radius of each domain's neighbourhood, in the l2 norm over all weights together.
        alpha: weight of the alignment term. The paper trains with 2e-4; its table VI finds 1e-3 best.
        variant: the paper's table III. "b": the perturbed loss alone, alpha is not used; "c": the plain loss with the alignment;
            "d": the perturbed loss with the alignment, which is the method.
        form: "first_order" or "exact". In variant c the first-order form takes three passes, since
            g_i + grad L_i(theta + e_i - alpha g_i) - grad L_i(theta + e_i) is the cheapest one whose error is O(alpha^2).
        align: "domain": with the domain's own g_i (eq. 6). "global": with the main gradient of section IV-B, the weighted mean of
            the g_i.
        weighting: "equal": 1/K of the domains present (eq. 6). "size": by the number of examples.
    """

    rho: float = 0.1
    alpha: float = 2e-4
    variant: Literal["b", "c", "d"] = "d"
    form: Literal["first_order", "exact"] = "first_order"
    align: Literal["domain", "global"] = "domain"
    weighting: Literal["equal", "size"] = "equal"

    def __post_init__(self) -> None:
        checks.number("rho", self.rho)
        checks.number("alpha", self.alpha)
        checks.choice("variant", self.variant, ("b", "c", "d"))
        checks.choice("form", self.form, ("first_order", "exact"))
        checks.choice("align", self.align, ("domain", "global"))
        checks.choice("weighting", self.weighting, ("equal", "size"))

    def check_domains(self, names: Sequence[str]) -> None:
        """Two at least: over one it is SAM of the radius rho - alpha ||g||, and a row of that name would mislead.

        Raises:
            RegistryError: fewer.
        """
        if len(names) < 2:
            raise RegistryError(
                f"roga works over several forgery domains, and the training data have one ({', '.join(names)}), with which it "
                "would be sam; train on two methods or more, or take sam"
            )

    def attach(self, detector: nn.Module) -> None:
        """The exact form must be able to differentiate the detector twice.

        Raises:
            RegistryError: it cannot.
        """
        if self.form == "exact" and self.variant != "b":
            check_twice_differentiable(detector, "roga with `form: exact`")

    def gradient(self, objective: Objective) -> Vector:
        """Equation 6 of the paper."""
        domains = objective.domains()
        shares = [1 / len(domains) if self.weighting == "equal" else d.examples / objective.examples for d in domains]
        self.diagnostics.clear()
        own: Iterable[Vector] = (domain.gradient() for domain in domains)  # one at a time, so that no two are held together
        main = None
        if self.align == "global":
            own = list(own)
            main = _total(shares, own)
        return _total(shares, (self._term(domain, g, main).spent() for domain, g in zip(domains, own, strict=True)))

    def passes(self, domains: int) -> float:
        """Two for each domain, at least."""
        return 2.0 * domains

    def probe_passes(self, domains: int) -> float:
        """One for each domain and variant; a product with the Hessian counts as three."""
        return (2.0 if self.form == "first_order" else 5.0) * domains

    def probe(self, objective: Objective) -> dict[str, Tensor]:
        """How far the method (variant d) is from perturbation alone (variant b).

        `cosine_b_d` is the cosine between the two gradients, `distance_b_d` the norm of their difference over that of (b): in
        float32 a cosine cannot tell directions apart that differ by less than about 3e-4 radians.
        """
        b, d = (replace(self, variant=variant).gradient(objective) for variant in ("b", "d"))
        length = b.norm() + TINY
        return {"cosine_b_d": b.dot(d) / (length * (d.norm() + TINY)), "distance_b_d": (d - b).norm() / length}

    def _term(self, domain: Objective, g: Vector, main: Vector | None) -> Vector:
        """The gradient of one domain's part of the objective, aligned with `main` or with its own g_i."""
        length = g.norm()
        self.diagnostics[f"alpha_g_over_rho/domain_{domain.domain}"] = self.alpha * length / self.rho
        if main is None and (self.variant, self.form) == ("d", "first_order"):  # all colinear: no vector beside g
            return domain.gradient(at=(self.rho / (length + TINY) - self.alpha) * g.spent())
        e = self.rho / (length + TINY) * g
        main = g if main is None else main
        if self.variant == "b":
            return domain.gradient(at=e.spent())
        if self.form == "exact":
            loss = g if self.variant == "c" else domain.gradient(at=e)
            return loss.plus(domain.hessian_product(main, at=e.spent()), times=-self.alpha)
        if self.variant == "c":
            return g + domain.gradient(at=e.plus(main, times=-self.alpha).spent()) - domain.gradient(at=e.spent())
        return domain.gradient(at=e.spent().plus(main, times=-self.alpha).spent())


def _total(shares: list[float], vectors: Iterable[Vector]) -> Vector:
    total = Vector({})
    for share, vector in zip(shares, vectors, strict=True):
        total = total.spent().plus(vector, times=share) if total.parts else share * vector
    return Vector(total.parts, fresh=True)  # a value again, even where it is but one spent term
