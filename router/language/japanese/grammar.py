"""The grammar of Japanese budgets: how lexemes make pieces. Particles are gone; the order between pieces is free.

Terminals come from `words` and `lexer`; `router.language.grammar` turns each alias into a piece.
"""

GRAMMAR = r"""
start: item*

?item: SEPARATOR -> separator
     | AND -> separator
     | amount | ratio | quantile | bound | duration | per
     | TEACHER -> teacher
     | PIECE -> piece
     | loose -> noun

?amount: NUM PERCENT                         -> percent
       | PART                                -> part
       | NUM (CALL | REQUEST)                -> calls
       | NUM TOKENS                          -> tokens
       | CURRENCY NUM                        -> money
       | NUM CURRENCY                        -> money
       | NUM                                 -> bare

?ratio: NUM REQUEST PER                      -> ratio

?quantile: PTH                               -> quantile
         | NUM PERCENTILE                    -> percentile
         | MEDIAN                            -> median
         | EVERY_ANSWER                      -> every_answer

?bound: UNDER -> bound
      | OVER -> bound
      | TARGET -> bound
      | FLOOR -> bound

duration: NUM UNIT

?per: NUM UNIT PER                           -> per
    | MARK+ NUM UNIT PER?                    -> per
    | MARK+ UNIT PER?                        -> per
    | NUM MARK UNIT PER?                     -> per
    | UNIT PER                               -> per
    | REQUEST PER                            -> per_request

?loose: CALL | REQUEST | TOKENS | ANSWER | CONCURRENT

%declare SEPARATOR AND PIECE NUM PART PERCENT CALL REQUEST TEACHER TOKENS CURRENCY PTH PERCENTILE MEDIAN EVERY_ANSWER
%declare UNDER OVER TARGET FLOOR UNIT MARK PER ANSWER CONCURRENT
"""
