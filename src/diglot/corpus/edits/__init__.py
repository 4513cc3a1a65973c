"""Changes to the text of kept documents, recorded as spans and applied when a text is read.

Every edit of a step looks at the text as the step found it and proposes spans; `spans.merge` settles where they
overlap. So no edit depends on what another one did, and the order in which they are written in a recipe means nothing.
Who wants one edit to see the result of another writes two edit steps.

EDITS lists them in the order in which they get the credit for a span that several propose.
"""

from __future__ import annotations

LINES, SIMILAR_LINES, PARAGRAPHS, SUBSTRINGS, LINKS = "lines", "similar_lines", "paragraphs", "substrings", "links"
PII, FULL_WIDTH = "pii", "full_width"

EDITS = {  # settings of an edit step -> what a reader should know before switching it on
    LINES: "lines that are no prose: without a stop at their end, too short, about cookies or scripts",
    SIMILAR_LINES: "sentences that repeat an earlier one of the same document, up to a tenth of their characters",
    PARAGRAPHS: "lines or paragraphs that an earlier document has too",
    SUBSTRINGS: "passages that an earlier document has too, wherever they begin",
    LINKS: "addresses, with the words of Markdown links kept",
    PII: "e-mail addresses, telephone, identity and card numbers, IP addresses: replaced by a placeholder",
    FULL_WIDTH: "full-width letters and digits: replaced by the half-width ones",
}
