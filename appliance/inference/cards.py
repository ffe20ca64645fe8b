"""Builds the explanation card of an observation, in words for the person who looks at it. Pure.

Says how well the rule could see and how well it is known to work; never what anybody meant.
"""

from __future__ import annotations

from appliance.card import HASH_DIGITS, Card
from appliance.inference.baseline import LEARN_S
from appliance.inference.measured import FIGURES, Figure
from appliance.inference.models import EYES, FACE_DETECTION, FACE_LANDMARK, HEAD, ModelFile
from appliance.inference.observations import Observation
from appliance.inference.rules import ANGLE_KINDS, SOUND_KINDS
from appliance.inference.voice import HEARD
from appliance.inference.voice_network import VOICE

# Less than this share of good light is another condition than the one that figures were measured in.
GOOD_LIGHT_SHARE = 0.9
QUALITY_WORDS = {
    "good": "good",
    "dark": "too dark",
    "glare": "glare",
    "blur": "out of focus",
    "frozen": "frozen",
    "covered": "covered",
    "no frame": "no frame",
}

# Where a face is decides where light and focus are judged, so both take part in the camera's kinds too.
_FACE = (FACE_DETECTION, FACE_LANDMARK)
MODELS_OF: dict[str, tuple[ModelFile, ...]] = {
    "nobody_at_desk": _FACE,
    "several_people": _FACE,
    "head_turned_away": (*_FACE, HEAD),
    "gaze_outside_work_area": (*_FACE, HEAD, EYES),
    "camera_covered": _FACE,
    "camera_blurred": _FACE,
    "camera_moved": _FACE,
    "picture_frozen": (),
    "voice_nearby": (VOICE,),
}
DOES_NOT_SHOW = {
    "nobody_at_desk": "where the person is or why, or that who came is who left; somebody whose face is turned off or "
    "bent low may still be there",
    "several_people": "who is in view or why, or that anybody spoke or helped; a proctor or a picture of a face counts",
    "head_turned_away": "what the person looks at or why; eyes may rest on the work while the head is turned",
    "gaze_outside_work_area": "what is being looked at or why; people look up and aside to think",
    "camera_covered": "what or who is before the lens, or why; a black cap and a room without light look alike",
    "camera_blurred": "why the picture is out of focus; anything about the person",
    "camera_moved": "who or what moved it, or why; a large thing that is set down before the lens looks alike; a plain "
    "wall shows no movement",
    "picture_frozen": "why the camera repeats its picture, or anything that happened meanwhile",
    "voice_nearby": "who speaks, what, to whom, from how far: the candidate, staff, a neighbour and a loudspeaker "
    "count alike; nobody can hear it again, no sound is kept",
}
NOT_SEEN = "does not apply: this rule listens and looks at no picture"


def explain(observation: Observation, policy: str) -> Card:
    """The card of `observation` under the exam policy `policy` ("statistics-1 v3")."""
    shares = _shares(observation)
    return Card(
        baseline=_baseline(observation),
        light=NOT_SEEN if observation.kind in SOUND_KINDS else _light(shares),
        occlusion=_heard(shares) if observation.kind in SOUND_KINDS else _occlusion(observation),
        models={model.file: model.sha256[:HASH_DIGITS] for model in MODELS_OF[observation.kind]},
        policy=policy,
        error_rate=error_rate(observation.kind, shares.get("good", 0.0) >= GOOD_LIGHT_SHARE),
        does_not_show=DOES_NOT_SHOW[observation.kind],
    )


def error_rate(kind: str, good_light: bool) -> str:
    """What was measured of this kind's readings in this light, with its sample; says so where nothing was."""
    figures = [figure for figure in FIGURES if kind in figure.kinds]
    if not figures:
        return "not measured: there are no labelled pictures for this rule yet"
    here = [figure for figure in figures if figure.light == "any" or good_light]
    if here:
        return f"{_quoted(here)}. {here[0].limits}"
    return f"not measured in this light. In good light: {_quoted(figures)}. {figures[0].limits}"


def _quoted(figures: list[Figure]) -> str:
    return "; ".join(
        f"{one.what}: {one.figure} (measured on {one.sample_size} {one.sample})" for one in figures
    )


def _baseline(observation: Observation) -> str:
    if observation.kind not in ANGLE_KINDS:
        return "does not apply: this rule compares with nothing that is usual for the person"
    learned_s = observation.measured["baseline_learned_s"]
    if learned_s <= 0.0:
        return "straight into the camera; no usual direction was learned yet"
    yaw_deg = round(observation.measured["baseline_yaw_deg"])
    side = f"{abs(yaw_deg)} degrees to the picture's {'right' if yaw_deg > 0 else 'left'}"
    return (
        f"usual direction {side if yaw_deg else 'straight into the camera'}, "
        f"learned over {learned_s:.0f} of {LEARN_S:.0f} s of this session"
    )


def _shares(observation: Observation) -> dict[str, float]:
    whole_s = sum(observation.quality_s.values())
    return {name: spent_s / whole_s for name, spent_s in observation.quality_s.items()} if whole_s else {}


def _light(shares: dict[str, float]) -> str:
    ordered = sorted(shares.items(), key=lambda each: -each[1])
    # Under half a percent rounds to nothing.
    told = [f"{QUALITY_WORDS[name]} {share:.0%}" for name, share in ordered if share >= 0.005]
    return f"picture {', '.join(told)} of the time" if told else "not known"


def _heard(shares: dict[str, float]) -> str:
    return f"could be heard {shares.get(HEARD, 0.0):.0%} of the time; the rest was without any sound, or lost"


def _occlusion(observation: Observation) -> str:
    whole_s = sum(observation.quality_s.values())
    hidden = observation.hidden_s / whole_s if whole_s else 0.0
    assessed = observation.measured["assessed_share"]
    return (
        f"could be assessed {assessed:.0%} of the time; "
        f"in a good picture, but with the face hidden, cut or unclear: {hidden:.0%}"
    )
