"""The nouns: fields, constraints and querysets, one file a group."""

from .assignments import Assignment, QueueCursor, SkipReason
from .comparisons import Candidate, Comparison
from .conversations import Conversation, Message
from .exports import Export
from .generation import Completion, GenerationRequest
from .imports import Import
from .jobs import Job
from .policies import Policy
from .projects import (
    GuidelineVersion,
    Iteration,
    IterationPolicy,
    Membership,
    Project,
    ProjectPolicy,
    SplitBy,
    TurnShape,
    WriteFrom,
)
from .prompts import FamilyMember, Prompt
from .rankings import Flag, RankedCandidate, Ranking
from .reviews import Review, ReviewComment
from .training import Passage, Score, TrainingPoint, TrainingRun
from .users import Role, User

__all__ = [
    "Assignment",
    "Candidate",
    "Comparison",
    "Completion",
    "Conversation",
    "Export",
    "FamilyMember",
    "Flag",
    "GenerationRequest",
    "GuidelineVersion",
    "Import",
    "Iteration",
    "IterationPolicy",
    "Job",
    "Membership",
    "Message",
    "Passage",
    "Policy",
    "Project",
    "ProjectPolicy",
    "Prompt",
    "QueueCursor",
    "RankedCandidate",
    "Ranking",
    "Review",
    "ReviewComment",
    "Role",
    "Score",
    "SkipReason",
    "SplitBy",
    "TrainingPoint",
    "TrainingRun",
    "TurnShape",
    "User",
    "WriteFrom",
]
