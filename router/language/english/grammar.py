"""The grammar of English budgets: how lexemes make pieces. Inside a piece the order is fixed, between them free.

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
     | TO -> noun
     | OF -> noun
     | amount | quantile | window | hours

?amount: NUM PERCENT _of_requests?            -> percent
       | NUM PERCENT _of_tokens               -> token_percent
       | PART _of_tokens                      -> token_part
       | PART _of_requests?                   -> part
       | NUM _of_requests                     -> part
       | NUM OF NUM _noun?                    -> one_of
       | NUM TEACHER? _noun                   -> calls
       | NUM TEACHER? CONCURRENT              -> concurrently
       | NUM TEACHER? CONCURRENT TEACHER? _noun -> concurrently
       | NUM TEACHER? TOKENS                  -> tokens
       | CURRENCY NUM                         -> money
       | NUM CURRENCY                         -> money
       | NUM                                  -> bare
       | COMPARED NUM TOKENS                  -> length
_of_requests: OF TEACHER? _noun
_of_tokens: OF TEACHER? TOKENS
_noun: CALL | REQUEST

?quantile: NUM PERCENTILE                     -> percentile
         | NUM PERCENT OF ANSWER              -> percent_of_answers
         | PART OF ANSWER                     -> part_of_answers
         | PER ANSWER                         -> every_answer

?window: _quantity UNIT                       -> duration
       | PER _quantity? UNIT                  -> per
       | PER? MARK+ NUM? UNIT                 -> per
       | PER NUM MARK UNIT                    -> per
       | PER NUM _noun?                       -> ratio
       | PER REQUEST                          -> per_request
       | PER SCOPE                            -> each
_quantity: NUM | PART

?hours: BETWEEN _clock AND _clock             -> hours
      | FROM _clock (TO | RANGE) _clock       -> hours
      | CLOCK (TO | RANGE) _clock             -> hours
      | NUM RANGE _clock                      -> hours
      | AFTER _clock                          -> after
      | BEFORE _clock                         -> before
_clock: CLOCK | NUM

%declare PIECE AND NUM PART PERCENT OF CALL REQUEST TEACHER TOKENS CURRENCY PER PERCENTILE ANSWER CONCURRENT
%declare COMPARED UNIT MARK SCOPE BETWEEN FROM TO RANGE CLOCK AFTER BEFORE
"""
