"""The grammar of Japanese budgets: how lexemes make pieces. Particles are gone; the order between pieces is free.

Terminals come from `words` and `lexer`; `router.language.grammar` turns each alias into a piece.
"""

GRAMMAR = r"""
start: item*

?item: PIECE -> piece
     | AND -> piece
     | TEACHER -> teacher
     | CALL -> noun
     | REQUEST -> noun
     | TOKENS -> noun
     | ANSWER -> noun
     | CONCURRENT -> noun
     | amount | window
     | NUM PERCENTILE                         -> percentile

?amount: NUM PERCENT                          -> percent
       | PART                                 -> part
       | NUM CALL                             -> calls
       | NUM REQUEST                          -> calls
       | NUM TOKENS                           -> tokens
       | CURRENCY NUM                         -> money
       | NUM CURRENCY                         -> money
       | NUM                                  -> bare

?window: NUM UNIT                             -> duration
       | NUM UNIT PER                         -> per
       | MARK+ NUM? UNIT PER?                 -> per
       | NUM MARK UNIT PER?                   -> per
       | UNIT PER                             -> per
       | REQUEST PER                          -> per_request
       | NUM REQUEST PER                      -> ratio

%declare PIECE AND NUM PART PERCENT CALL REQUEST TEACHER TOKENS CURRENCY PERCENTILE UNIT MARK PER ANSWER CONCURRENT
"""
