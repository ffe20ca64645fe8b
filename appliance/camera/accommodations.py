"""What the recording itself says of a seat's accommodations: one closed, technical entry at the head of each log track.

In the log track and not among the session's events: those stand in the manifest, in clear and in the storage, and a
code beside a candidate's code says something about a person. The representatives open it with the observations.
"""

from __future__ import annotations

from appliance.card import Card
from appliance.policy import ACCOMMODATION_WORDS, Accommodation, ExamPolicy
from appliance.protocol import ObservationReport

KIND = "seat_accommodations"
NOTHING_MEASURED = "does not apply: nothing was measured, staff set these codes"


def accommodations_report(
    codes: tuple[Accommodation, ...], policy: ExamPolicy, at_90k: int
) -> ObservationReport:
    """What applies from `at_90k` on, in codes and in words; it has no level and is about nobody's behaviour."""
    return ObservationReport(
        kind=KIND,
        words="rules set for this seat",
        phase="closed",
        start_90k=at_90k,
        end_90k=at_90k,
        duration_s=0.0,
        level=None,
        technical=True,
        rule="; ".join(ACCOMMODATION_WORDS[code] for code in codes),
        measured={"accommodations": ",".join(codes)},
        card=Card(
            baseline=NOTHING_MEASURED,
            light=NOTHING_MEASURED,
            occlusion=NOTHING_MEASURED,
            models={},
            policy=f"{policy.id} v{policy.version}",
            error_rate=NOTHING_MEASURED,
            does_not_show="why they were set, or anything that anybody did",
        ),
    )
