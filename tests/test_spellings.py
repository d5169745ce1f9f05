"""What is equal has equal answers, however it is written: at both steps, at fixed dampings.

Each row is a pair of rules that are one matrix for any numbers: transposes, push-through, norms,
rescalings, quotients, functions of one matrix, products in another order.
"""

import pytest
from soundness import Question, theory

PAIRS = [
    ("(G.T).T", "G"),
    ("(G.T@L).T", "L@G"),
    ("(R@G.T).T", "G@R"),
    ("((A+rho*I)**(-1)@G.T).T", "G@(A+rho*I)**(-1)"),
    ("(sign(G.T)).T", "sign(G)"),
    ("(orth(G.T)).T", "orth(G)"),
    ("(G.T*abs(G.T)).T", "G*abs(G)"),
    ("G@G.T@G", "L@G"),
    ("G@(G.T@G)", "G@R"),
    ("(G@G.T)@G", "L@G"),
    ("L@G", "G@R"),
    ("L@L@G", "G@R@R"),
    ("(L+rho*I)**(-1)@G", "G@(R+rho*I)**(-1)"),
    ("(L+rho*I)**(-1/2)@G", "G@(R+rho*I)**(-1/2)"),
    ("L**(-1/2)@G", "orth(G)"),
    ("G@R**(-1/2)", "orth(G)"),
    ("(G@G.T+rho*I)**(-1)@G", "(L+rho*I)**(-1)@G"),
    ("G*norm(G)**2", "G*trace(L)"),
    ("G*norm(G)**2", "G*trace(R)"),
    ("G*norm(G)**2", "G*inner(G,G)"),
    ("G*norm(W)**2", "G*inner(W,W)"),
    ("G*norm(W)**2", "G*trace(W@W.T)"),
    ("G*norm(W)**2", "G*trace(W.T@W)"),
    ("G*trace(A@R)", "G*trace(R@A)"),
    ("G*trace(A@R)", "G*inner(G@A,G)"),
    ("G*trace(G@A@G.T)", "G*inner(G@A,G)"),
    ("G*trace(B@L)", "G*inner(B@G,G)"),
    ("G*trace(L@L)", "G*norm(L)**2"),
    ("G*trace(A@A)", "G*norm(A)**2"),
    ("G/norm(G)", "G/sqrt(norm(G)**2)"),
    ("G/norm(G)", "G/(norm(G)**2)**(1/2)"),
    ("G*rms(G)", "G*norm(G)/sqrt(fan_in*fan_out)"),
    ("G*rms(G)*norm(G)", "G*norm(G)*rms(G)"),
    ("G/norm(G.T)", "G/norm(G)"),
    ("G/specnorm(L)", "G/specnorm(R)"),
    ("orth(2*G)", "orth(G)"),
    ("sign(3*G)", "sign(G)"),
    ("orth(G/norm(G))", "orth(G)"),
    ("sign(G/norm(G))", "sign(G)"),
    ("newton_schulz(2*G,5)", "newton_schulz(G,5)"),
    ("G/norm(2*G)", "G/(2*norm(G))"),
    ("(2*G)*(3*G)*G", "6*G*G*G"),
    ("G/(3*G*G+eps)", "G/(3*(G*G)+eps)"),
    ("G/sqrt(2*G*G*3+eps)", "G/sqrt(6*(G*G)+eps)"),
    ("G/(G/2*G+eps)", "G/(G*G/2+eps)"),
    ("G/(G*W*G*W+eps)", "G/((G*W)*(G*W)+eps)"),
    ("G/(3*G*G*G*G+eps)", "G/(3*G**4+eps)"),
    ("G*inner(G,W)*inner(G,W)", "G*inner(G,W)**2"),
    ("G/sqrt(inner(G,W)*inner(G,W)+eps)", "G/sqrt(inner(G,W)**2+eps)"),
    ("G/abs(G)", "sign(G)"),
    ("G/sqrt(G*G)", "sign(G)"),
    ("abs(G)*sign(G)", "G"),
    ("sqrt(G*G)*sign(G)", "G"),
    ("G*abs(G)/abs(G)", "G"),
    ("G/(sqrt(G*G)+eps)", "G/(abs(G)+eps)"),
    ("G*G*G", "G**3"),
    ("sqrt(abs(G))*sign(G)", "sign(G)*abs(G)**(1/2)"),
    ("G@(2*A+2*rho*I)**(-1)", "G@(A+rho*I)**(-1)/2"),
    ("G@(A/2+rho*I/2)**(-1)", "2*G@(A+rho*I)**(-1)"),
    ("G@(A**2)**(1/2)", "G@A"),
    ("G@A@A", "G@A**2"),
    ("G@(A+rho*I)**(-1)", "G@(A+rho*I)**(-1/2)@(A+rho*I)**(-1/2)"),
    ("G@(A@(A+rho*I)**(-1))", "G@A@(A+rho*I)**(-1)"),
    ("G@((A+rho*I)**(-1)@A)", "G@A@(A+rho*I)**(-1)"),
    ("G@(A@R)", "(G@A)@R"),
    ("(B@L)@G", "B@(L@G)"),
    ("B@(G@A)", "(B@G)@A"),
    ("G-G@A@(A+rho*I)**(-1)", "rho*G@(A+rho*I)**(-1)"),
    ("G@(I-A@(A+rho*I)**(-1))", "rho*G@(A+rho*I)**(-1)"),
    ("block(B,1)@G", "diag(B)@G"),
    ("(block(B,1)+rho*I)**(-1)@G", "(diag(B)+rho*I)**(-1)@G"),
    ("block(B,1)**(-1)@G", "diag(B)**(-1)@G"),
    ("G*inner(orth(G),G)", "G*inner(G,orth(G))"),
    ("G*inner(sign(G),G)", "G*inner(G,sign(G))"),
    ("2*G-G", "G"),
    ("G+G", "2*G"),
    ("G-3*G", "-2*G"),
    ("G*(1+1)", "2*G"),
    ("abs(W)*abs(W)*G", "W*W*G"),
    ("sqrt(W*W)*sign(G)", "abs(W)*sign(G)"),
    ("(G.T*abs(W.T)).T", "abs(W)*G"),
    ("sign(G+W)", "sign(W+G)"),
    ("(orth(G.T+W.T)).T", "orth(G+W)"),
    ("sign((G.T-col_mean(G.T)).T)", "sign(G-row_mean(G))"),
    ("sign(2*G-2*row_mean(G))", "sign(G-row_mean(G))"),
    ("orth(-row_mean(G)+G)", "orth(G-row_mean(G))"),
    ("G/(row_mean(G*G))**(1/2)", "G/sqrt(row_mean(G**2))"),
    ("orth(G)/(row_mean(orth(G)**2))**(1/2)", "orth(G)/sqrt(row_mean(orth(G)*orth(G)))"),
    ("(G@((R+rho*I)**(-1)@G.T)+rho*I)**(-1/2)@G", "(G@(R+rho*I)**(-1)@G.T+rho*I)**(-1/2)@G"),
]


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_what_is_equal_has_equal_answers(one: str, other: str, step: int) -> None:
    named = [name for name in ("rho", "eps") if name in one + other]
    for d in ["0", "2", "-2"][: 3 if step == 1 else 1] if named else [""]:
        found = []
        for rule in (one, other):
            fixed = tuple(f"d_{name}={d}" for name in named)
            answer = theory(Question(rule, fixed, step=step))
            found.append((answer.own, answer.exponents and answer.exponents.c))
            if answer.refusal:
                found[-1] = (answer.refusal.split(",")[0], None)
        assert found[0] == found[1], (one, other, step, d)
