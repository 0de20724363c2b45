"""The audit sample: a random sample of everybody scored, whose outcomes should be collected.

Outcomes come mostly of those who are contacted. Without people who are asked whatever their score, nobody
can say whom the model misses. What belongs here is who is drawn; how their outcomes are weighed is in
``core/monitoring/realised_performance.py``.
"""

from poleng_assets.study.schema import Study

# Hexadecimal digits of the hash that are compared: 48 bits.
_DIGITS = 12


def in_audit(study: Study, column: str) -> str:
    """Return the SQL condition that says whether a person is in the audit sample.

    It looks at nothing but the policy's seed and the id (Poisson sampling by permanent random numbers:
    K. R. W. Brewer et al., Australian Journal of Statistics 14, 1972), so the same person is in it or
    not in every batch and under every model version, and nothing has to be remembered. The holdout is
    drawn by another hash: being in the one says nothing about the other.

    Args:
        study: its policy has the share and the seed.
        column: SQL of the id, text.
    """
    policy = study.policies.outcomes
    # One digit more than is compared, because a share of 1 is beyond the last of them.
    limit = f"{round(policy.audit_share * 16**_DIGITS):0{_DIGITS + 1}x}"
    return f"('0' || left(sha256('audit:{policy.audit_seed}:' || {column}), {_DIGITS}) < '{limit}')"
