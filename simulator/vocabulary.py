"""The words by which a request is read. Data; nothing here decides."""

import re
from dataclasses import dataclass
from typing import Final


def words(text: str) -> frozenset[str]:
    """Return the words of a text as a set."""
    return frozenset(text.split())


@dataclass(frozen=True, slots=True)
class Deliverable:
    """A thing that can be asked for, and who makes it."""

    key: str
    title: str
    roles: tuple[str, ...] = ("medium_ai", "fast_ai")
    addons: tuple[str, ...] = ()


_WRITERS: Final = ("thinking_ai", "medium_ai")
_CODERS: Final = ("code_ai", "thinking_ai")
_IMAGES: Final = """image images picture pictures photo photos logo logos illustration illustrations poster posters
    banner banners infographic infographics drawing artwork"""

_THINGS: Final[tuple[tuple[Deliverable, str], ...]] = (
    (Deliverable("report", "the report", _WRITERS, ("executive_summary",)), "report reports whitepaper dossier"),
    (Deliverable("article", "the article", _WRITERS, ("blog_writing",)), "article articles essay essays blog"),
    (
        Deliverable("social_posts", "the social media posts", ("medium_ai",), ("instagram", "twitter", "facebook")),
        "posts tweet tweets instagram tiktok linkedin facebook hashtag hashtags",
    ),
    (
        Deliverable("emails", "the e-mail", ("medium_ai",), ("email_campaigns",)),
        "email emails e-mail e-mails newsletter newsletters",
    ),
    (
        Deliverable("slogan", "the slogan", ("fast_ai", "medium_ai"), ("headline_optimization",)),
        "slogan slogans tagline taglines headline headlines",
    ),
    (
        Deliverable("ads", "the advertising copy", ("medium_ai",), ("ad_copy",)),
        "ad ads advert adverts advertisement advertisements",
    ),
    (Deliverable("landing_page", "the landing page", ("medium_ai",), ("landing_page",)), "landing-page landing"),
    (
        Deliverable("presentation", "the presentation", ("medium_ai",), ("executive_presentation",)),
        "presentation slides deck",
    ),
    (
        Deliverable("script", "the script", ("medium_ai",), ("youtube_scripts",)),
        "script scripts screenplay storyboard",
    ),
    (Deliverable("budget", "the budget", ("medium_ai",), ("decision_matrix",)), "budget budgets forecast forecasts"),
    (Deliverable("strategy", "the strategy", _WRITERS, ("campaign_planning",)), "strategy strategies roadmap"),
    (Deliverable("summary", "the summary", ("fast_ai", "medium_ai"), ("executive_summary",)), "summary summaries"),
    (
        Deliverable("personas", "the customer personas", ("medium_ai",), ("customer_persona",)),
        "persona personas",
    ),
    (Deliverable("questions", "the questions", ("medium_ai",)), "questionnaire faq faqs"),
    (
        Deliverable("architecture", "the architecture", ("thinking_ai", "code_ai"), ("project_brief",)),
        "architecture",
    ),
    (Deliverable("tests", "the tests", _CODERS), "tests"),
    (
        Deliverable("documentation", "the documentation", ("medium_ai",), ("standard_operating_procedure",)),
        "documentation docs readme",
    ),
    (Deliverable("image", "the image", ("imagen_4_ultra", "image_model")), _IMAGES),
    (Deliverable("video", "the video", ("veo_3_1",)), "video videos clip clips animation animations trailer slideshow"),
    (Deliverable("audio", "the audio", ("medium_ai",)), "audio podcast podcasts voiceover voice-over narration"),
)
DELIVERABLES: Final = {word: thing for thing, listed in _THINGS for word in listed.split()}
MEDIA: Final = frozenset({"image", "video", "audio"})
MAKES_MEDIA: Final = words(
    "create generate make design draw produce render paint convert record edit animate apply stitch combine"
)

ACTIONS: Final = words(
    """add adapt analyse analyze announce apply arrange assemble assess attach book brainstorm build buy calculate chart
    check classify clean code collect combine compare compile compose compute convert create critique debug deliver
    deploy derive describe design detect develop document download draft draw edit email enhance estimate evaluate
    examine expand explain extract find fix forecast format gather generate identify illustrate implement improve
    install interview invent investigate list make map measure merge monitor optimise optimize order organise organize
    outline paint paraphrase pay personalise plan play post predict prepare present print produce program proofread
    propose prove publish rank recommend record refactor remove render replace report research reserve review revise
    rewrite schedule score search segment sell send set share shorten simplify sketch solve splice stabilize stitch
    suggest summarise summarize survey synthesise synthesize test transcribe transform translate turn update upload
    validate verify visualise visualize write"""
)
INVESTIGATES: Final = words(
    "research investigate survey gather analyse analyze collect examine interview compare find search"
)
PRODUCES: Final = words("write create draft design compose produce generate make build prepare develop publish present")
CLAUSE_OPENERS: Final = words("to and then")
"""A verb after one of these begins a clause wherever they stand."""
CLAUSE_FILLERS: Final = words(
    """please also finally first next afterwards second secondly third lastly now subsequently can could would you i we
    want need like let's let us help me must should will it plus"""
)
"""Words that a clause may begin with before its verb."""
SEQUENCE: Final = words("afterwards finally lastly subsequently thereafter")
SEQUENCE_PHRASES: Final = re.compile(
    r"\b(?:and then|after (?:that|which|this)|once (?:it|this|that|you|they|done)|followed by|step by step plan)\b"
    r"|\bbased on (?:the|that|your|this) (?:result|finding|research|analysis|outcome|report|summary)"
    r"|\busing the (?:result|finding|output)|[.;,]\s*then\b"
)
SEQUENCE_WORDS: Final = words("then after once followed step based using")
"""No phrase is there without one of these: a search costs more than a look into a set."""
CAMPAIGN: Final = re.compile(
    r"\b(?:campaigns?|end-to-end|go-to-market|launch (?:plan|strategy|package|kit)|product launch|multi-?step|"
    r"multimedia|brand (?:kit|identity)|business plan)\b"
)
CAMPAIGN_WORDS: Final = words(
    "campaign campaigns end-to-end go-to-market launch product multi-step multistep multimedia brand business"
)

CODE: Final = words(
    """program app application applications compiler interpreter game library server api website backend frontend cli
    bot crawler scraper engine framework parser database algorithm simulator microservice codebase script class module
    plugin sdk"""
)
LANGUAGES: Final = words(
    """python rust java javascript typescript golang kotlin swift c++ c# haskell ruby php sql html css react django
    fastapi flask"""
)
SMALL_CODE: Final = words("function functions regex one-liner snippet line query method expression")
CODE_VERBS: Final = words("write implement build develop create code program design refactor make debug")

LENGTH: Final = re.compile(r"\b(\d+(?:[,.]\d{3})*)[\s-]*(k\b)?[\s-]*(words?|pages?|chapters?)\b")
LENGTH_WORDS: Final = words("word words page pages chapter chapters")
THOROUGH: Final = words(
    """comprehensive in-depth exhaustive detailed complete full thorough rigorous extensive long full-length
    definitive"""
)
BIG_TEXT: Final = words(
    """article essay guide report tutorial book chapter thesis dissertation paper story novel novella manual textbook
    analysis treatise biography"""
)
HARD: Final = words(
    """prove proof theorem lemma conjecture olympiad derivation np-hard np-complete irrational diophantine eigenvalues
    manifold topology lagrangian hamiltonian asymptotic undecidable formalize"""
)

DULL: Final = words(
    """about above after again also answer asked back because been before being below could complete does doing down
    each every from give have having here into just like make more most much must need only other over please
    same should show some such tell than that their them then there these they this those through under very
    want were what when where which while whom will with would write your you’re simulated request results
    earlier said"""
)
"""Words that say nothing about what a question is about."""

TOKEN: Final = re.compile(r"[a-z][a-z0-9'’+#-]*|[.,;:!?\n]")
STOPS: Final = frozenset(".,;:!?\n")
