"""The grammar of English budgets: how lexemes make pieces. Inside a piece the order is fixed, between them free.

Terminals come from `words` and `lexer`; `router.language.grammar` turns each alias into a piece.
"""

GRAMMAR = r"""
start: item*

?item: SEPARATOR -> separator
     | AND -> separator
     | amount | ratio | quantile | bound | duration | per | scope | time | condition
     | TEACHER -> teacher
     | PIECE -> piece
     | loose -> noun

?amount: NUM PERCENT _of_requests?            -> percent
       | PART _of_requests?                   -> part
       | NUM _of_requests                     -> part
       | NUM OF NUM (REQUEST | CALL)?        -> one_of
       | NUM TEACHER? (CALL | REQUEST)       -> calls
       | NUM TEACHER? CONCURRENT             -> concurrently
       | NUM TEACHER? CONCURRENT TEACHER? (CALL | REQUEST) -> concurrently
       | A TEACHER? CALL                     -> one_call
       | A CONCURRENT TEACHER? CALL          -> one_call
       | TIMES                               -> times
       | NUM TEACHER? TOKENS                 -> tokens
       | CURRENCY NUM                        -> money
       | NUM CURRENCY                        -> money
       | NUM                                 -> bare
_of_requests: OF REQUEST | OF CALL | OF TEACHER CALL | OF_REQUESTS

?ratio: (PER | IN | OUT_OF) NUM                    -> ratio
      | (PER | IN | OUT_OF) NUM (REQUEST | CALL)   -> ratio

?quantile: PTH                               -> quantile
         | NUM PERCENTILE                    -> percentile
         | MEDIAN                            -> median
         | NUM PERCENT OF ANSWER             -> percent_of_answers
         | PART OF ANSWER                    -> part_of_answers
         | PER ANSWER                        -> every_answer

?bound: UNDER -> bound
      | WITHIN -> bound
      | OVER -> bound
      | TARGET -> bound
      | FLOOR -> bound

duration: NUM UNIT | PART UNIT

?per: PER UNIT                               -> per
    | (PER | IN | A) (NUM | PART) UNIT                -> per
    | (PER | A | IN)? MARK+ NUM? UNIT        -> per
    | (PER | IN | A) NUM MARK+ UNIT          -> per
    | A UNIT                                 -> per
    | PER REQUEST                            -> per_request
    | A REQUEST                              -> per_request

?scope: PER SCOPE                            -> each
      | A SCOPE                              -> each

?time: BETWEEN clock AND clock               -> hours
     | FROM clock (TO | RANGE) clock         -> hours
     | CLOCK (RANGE | TO) clock              -> hours
     | NUM RANGE clock                       -> hours
     | AFTER clock                           -> after
     | BEFORE clock                          -> before
?clock: CLOCK | NUM

?condition: LONGER NUM TOKENS                -> longer
          | SHORTER NUM TOKENS               -> shorter

?loose: CALL | REQUEST | TOKENS | ANSWER | CONCURRENT | TO | IN | OF | FROM | A

%declare SEPARATOR AND PIECE NUM PART PERCENT OF OF_REQUESTS OUT_OF CALL REQUEST TEACHER TIMES TOKENS CURRENCY A PER IN
%declare PTH PERCENTILE MEDIAN ANSWER CONCURRENT UNDER OVER TARGET FLOOR UNIT MARK SCOPE WITHIN BETWEEN FROM
%declare TO RANGE CLOCK AFTER BEFORE LONGER SHORTER
"""
