"""Help: teacher tokens inside a student's answer.

The student writes; it asks (its own `<help>` token) or is doubted (its log-probabilities); the ledger admits; the
teacher continues the text for a few tokens; the student goes on. The client sees one answer.

    suits        which requests can be helped at all
    probe        what the two models can do, asked once: the id of `<help>`, who continues a text, one tokenizer or two
    bodies       the text so far as a request to either model
    wire         an upstream's chunks as pieces
    seams        what happens to text where one model ends and the other begins (pure)
    answer       the loop; `turns` is what it counts in, `line` what has been written so far
    shapes       pieces as the client's OpenAI chunks, or one answer
    watch        the help step of a student that does not ask by itself
    calls        each help before the ledger
    delivery     one request's helped answer, put together
    start        the check before the gateway starts
    worker       what all answers of a worker share: the promise on tokens, pacing, the models' traits
"""
