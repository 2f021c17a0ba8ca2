# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Reading and scoring again, compiled: a tenth of the time, the same numbers.

Python is the reference and the fallback. What a feature means is decided there: words and kinds of bytes are handed
over by `policies.prompt_features` and `policies.draft_features`, and what is rare or needs a regular expression
(choices, sums, hedges, answers marked as such) is left to their functions. Tests hold both to the same numbers.

A `Reader` reads bytes in one pass: lower case, words, their CRC-32, n-grams, known words. A `Forward` goes from the
features and n-grams of one request to what a step's network says of it. Both keep their buffers between calls, belong
to one thread at a time, and do not let go of the interpreter lock: a call takes some microseconds.

It is one file because what Cython puts around each module takes longer to compile than what is written here.
"""

from cpython.mem cimport PyMem_Free, PyMem_Malloc
from libc.math cimport exp, fabs, floor, log, log1p, sqrt, tanh
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, qsort, realloc
from libc.string cimport memchr, memcmp, memcpy, memset

import numpy as np

cdef extern from *:
    """
    #ifndef MADE_FROM
    #define MADE_FROM ""
    #endif
    """
    const char *_MADE_FROM "MADE_FROM"

MADE_FROM = _MADE_FROM.decode()
"""Part of the SHA-256 of this file when it was compiled."""
MADE_FOR = (0x0403D0E8, 0xB49D1F80)
"""CRC-32 of the version and names of the features whose places are written down here, see `policies.compiled`."""

# --- Bytes ----------------------------------------------------------------------------------------------------------

cdef enum:
    SPACE, LETTER, DIGIT, HIGH, OTHER

cdef unsigned char SORT[256]
cdef unsigned char LOWER[256]
cdef unsigned char BLANK[256]  # what str.strip() takes off, of ASCII
cdef uint32_t CRC[256]
cdef double POWERS[16]


cdef void fill_tables() noexcept:
    cdef uint32_t byte, crc
    cdef int i
    for byte in range(256):
        LOWER[byte] = byte + 32 if 65 <= byte <= 90 else byte
        BLANK[byte] = 9 <= byte <= 13 or 28 <= byte <= 32
        if 9 <= byte <= 13 or byte == 32:
            SORT[byte] = SPACE
        elif 97 <= byte <= 122:
            SORT[byte] = LETTER
        elif 48 <= byte <= 57:
            SORT[byte] = DIGIT
        else:
            SORT[byte] = HIGH if byte >= 128 else OTHER
        crc = byte
        for i in range(8):
            crc = (crc >> 1) ^ (0xEDB88320U if crc & 1 else 0)
        CRC[byte] = crc
    POWERS[0] = 1.0
    for i in range(1, 16):
        POWERS[i] = 10.0 * POWERS[i - 1]


fill_tables()


cdef uint32_t crc_of(const unsigned char *text, Py_ssize_t size) noexcept nogil:
    cdef uint32_t crc = 0xFFFFFFFFU
    cdef Py_ssize_t i
    for i in range(size):
        crc = (crc >> 8) ^ CRC[(crc ^ text[i]) & 0xFF]
    return crc ^ 0xFFFFFFFFU


cdef Py_ssize_t number_end(const unsigned char *text, Py_ssize_t at, Py_ssize_t size) noexcept nogil:
    """Where `[0-9][0-9,]*(\\.[0-9]+)?` ends that begins at a digit."""
    while at < size and (SORT[text[at]] == DIGIT or text[at] == c","):
        at += 1
    if at + 1 < size and text[at] == c"." and SORT[text[at + 1]] == DIGIT:
        at += 2
        while at < size and SORT[text[at]] == DIGIT:
            at += 1
    return at


cdef double number(const unsigned char *text, Py_ssize_t size) except? -1.0:
    """What `to_number` makes of it."""
    cdef uint64_t whole = 0
    cdef int digits = 0, after = 0, point = 0
    cdef Py_ssize_t i
    for i in range(size):
        if text[i] == c".":
            point = 1
        elif text[i] != c",":
            digits += 1
            if digits > 15:
                return min(float((<const char *> text)[:size].replace(b",", b"")), 1e18)
            whole = 10 * whole + (text[i] - 48)
            after += point
    return <double> whole / POWERS[after]  # both are exact, so this rounds once, as a careful parser does


cdef bint contains(const unsigned char *text, Py_ssize_t size, bytes what) noexcept:
    cdef const unsigned char *wanted = what
    cdef Py_ssize_t length = len(what)
    cdef const unsigned char *at = text
    cdef const unsigned char *end = text + size - length + 1
    while at < end:
        at = <const unsigned char *> memchr(at, wanted[0], end - at)
        if at == NULL:
            return False
        if memcmp(at, wanted, length) == 0:
            return True
        at += 1
    return False


# --- Words ----------------------------------------------------------------------------------------------------------

cdef enum:
    NGRAM_BITS = 15
    NGRAMS = 1 << NGRAM_BITS
    CLASSES = 21
    LEXICONS = 20
    MOST_KINDS = 24
    MOST_KINDS_OF_A_WORD = 4
    KNOWN = 1024  # places for known words: several times as many as there are
    LONGEST = 1 << 28  # bytes of a text: far more than anybody sends here, and few enough for 32 bits

cdef enum:  # kinds of the words of drafts
    HEDGES, REFUSALS, CONNECTIVES

cdef enum:  # places of features: of a prompt
    P_CLASSES = 1
    P_WORDS = P_CLASSES + CLASSES
    P_LEXICONS = P_WORDS + 3
    P_NUMBERS = P_LEXICONS + LEXICONS
    P_CHOICES = P_NUMBERS + 6
    P_STEM = P_CHOICES + 6
    P_END = P_STEM + 1
    P_CONVERSATION = P_END + 4
    P_SIZE = P_CONVERSATION + 4

cdef enum:  # of a draft
    D_HERE = 0
    D_LOGPROBS = 1
    D_ENDED = 18
    D_BYTES = 21
    D_WORDS = 22
    D_LINES = 23
    D_TO_PROMPT = 24
    D_EMPTY = 25
    D_BOXED = 28
    D_CLOSED = 31
    D_UNUSED = 45
    D_DISTINCT = 48
    D_REPEATED_PAIRS = 49
    D_CONNECTIVES = 53
    D_QUESTIONS = 64
    D_LATEX = 65
    D_SIZE = 66

cdef enum:  # what is left to do of a draft, as bits
    LEFT_LINES = 1
    LEFT_ANSWER = 2
    LEFT_CHOICES = 4
    LEFT_HEDGES = 8
    LEFT_REFUSALS = 16

LINES, ANSWER, CHOICES, HEDGED, REFUSED = LEFT_LINES, LEFT_ANSWER, LEFT_CHOICES, LEFT_HEDGES, LEFT_REFUSALS
"""The same for Python: features that `policies.draft_features` has in functions of their own."""

cdef uint64_t LEFT = 0x9E3779B97F4A7C15U
cdef uint64_t RIGHT = 0xC2B2AE3D27D4EB4FU

cdef struct Token:
    uint32_t crc
    uint32_t start
    uint32_t size

cdef struct Word:
    uint32_t crc
    uint32_t size  # 0 where the place is empty
    const unsigned char *text
    int count
    int kinds[MOST_KINDS_OF_A_WORD]


cdef class Reader:
    """`classes`: kinds of bytes that prompts count. `words`: known words, each with the kinds that it counts as."""

    cdef object _kept  # what pointers point into
    cdef int _classes
    cdef const unsigned char *_class[CLASSES]
    cdef Py_ssize_t _class_size[CLASSES]
    cdef Word _known[KNOWN]
    # Of the text that was read last:
    cdef Py_ssize_t _room, _count, _distinct
    cdef unsigned char *_low
    cdef Token *_tokens
    cdef int32_t *_places
    cdef Py_ssize_t _of_kind[MOST_KINDS]
    cdef unsigned char _seen[NGRAMS]  # all 0 between calls

    def __cinit__(self, classes, words):
        cdef Word *place
        cdef bytes text
        if len(classes) not in (0, CLASSES) or len(words) * 2 > KNOWN:
            raise ValueError(f"{len(classes)} classes, {len(words)} words")
        self._kept = [*classes, *words]
        self._classes = len(classes)
        for i, members in enumerate(classes):
            self._class[i] = members
            self._class_size[i] = len(members)
        for text in self._kept[len(classes):]:
            kinds = words[text]
            if not text or len(kinds) > MOST_KINDS_OF_A_WORD or max(kinds) >= MOST_KINDS:
                raise ValueError(f"{text!r}: {kinds}")
            crc = crc_of(text, len(text))
            place = self._find(text, len(text), crc)
            place.crc, place.size, place.text, place.count = crc, len(text), text, len(kinds)
            for i, kind in enumerate(kinds):
                place.kinds[i] = kind

    def __dealloc__(self):
        free(self._low)
        free(self._tokens)
        free(self._places)

    cdef Word *_find(self, const unsigned char *text, Py_ssize_t size, uint32_t crc) noexcept nogil:
        """The word's place, or the empty one where it would be."""
        cdef uint32_t at = crc & (KNOWN - 1)
        while True:
            word = &self._known[at]
            if word.size == 0 or (word.crc == crc and word.size == size and memcmp(word.text, text, size) == 0):
                return word
            at = (at + 1) & (KNOWN - 1)

    cdef int _read(self, const unsigned char *raw, Py_ssize_t size) except -1:
        """Fills all that is known of the text read last."""
        cdef Py_ssize_t at = 0, start, end, places = 64
        cdef unsigned char sort
        cdef uint32_t crc, mask, place
        cdef unsigned char *low
        cdef Token *token
        cdef Token *other
        cdef Word *word
        if size > LONGEST:
            raise ValueError("a text of such a length is nothing to look at as a whole")
        while places < 2 * size:
            places *= 2
        if size > self._room or self._low == NULL:
            self._room = 0
            self._low = <unsigned char *> realloc(self._low, places)
            self._tokens = <Token *> realloc(self._tokens, places * sizeof(Token))
            self._places = <int32_t *> realloc(self._places, places * sizeof(int32_t))
            if self._low == NULL or self._tokens == NULL or self._places == NULL:
                raise MemoryError
            self._room = places // 2
        low = self._low
        for at in range(size):
            low[at] = LOWER[raw[at]]
        memset(self._places, 0, places * sizeof(int32_t))
        memset(self._of_kind, 0, sizeof(self._of_kind))
        self._count, self._distinct = 0, 0
        mask = places - 1
        at = 0
        while at < size:
            start, sort = at, SORT[low[at]]
            at += 1
            if sort == SPACE:
                continue
            end = size
            if sort == OTHER:
                end = at
            elif sort == HIGH and start + 6 < size:
                end = start + 6
            while at < end and SORT[low[at]] == sort:
                at += 1
            crc = crc_of(low + start, at - start)
            token = &self._tokens[self._count]
            token.crc, token.start, token.size = crc, start, at - start
            self._count += 1
            place = crc & mask
            while self._places[place]:
                other = &self._tokens[self._places[place] - 1]
                if other.crc == crc and other.size == token.size and (
                    memcmp(low + other.start, low + start, token.size) == 0
                ):
                    break
                place = (place + 1) & mask
            else:
                self._places[place] = self._count
                self._distinct += 1
            word = self._find(low + start, token.size, crc)
            if word.size:
                for place in range(word.count):
                    self._of_kind[word.kinds[place]] += 1
        return 0

    cdef object _ngrams(self):
        """Unigrams, then pairs of neighbours, as `hash_tokens` has them."""
        cdef Py_ssize_t i, count = self._count
        if count == 0:
            return np.empty(0, np.int64)
        indices = np.empty(2 * count - 1, np.int64)
        cdef int64_t[::1] out = indices
        for i in range(count):
            out[i] = self._tokens[i].crc & (NGRAMS - 1)
        for i in range(count - 1):
            out[count + i] = (self._tokens[i].crc * LEFT + self._tokens[i + 1].crc * RIGHT) >> (64 - NGRAM_BITS)
        return indices

    cdef double _repeated_pairs(self, const int64_t[::1] indices) noexcept:
        """The share of the pairs of neighbours that were there before."""
        cdef Py_ssize_t i, distinct = 0, size = len(indices), first = (size + 1) // 2
        if first < 2:
            return 0.0
        for i in range(first, size):
            distinct += not self._seen[indices[i]]
            self._seen[indices[i]] = 1
        for i in range(first, size):
            self._seen[indices[i]] = 0
        return 1.0 - <double> distinct / <double> (first - 1)

    def prompt(self, bytes raw, double question, tuple rest):
        """(features, n-grams, numbers) of a prompt without choices. `question`: whether it ends with a question mark;
        `rest`: the features of the conversation, which stand last."""
        cdef const unsigned char *text = raw
        cdef Py_ssize_t size = len(raw), i, j, end, at = 0, fractions = 0, large = 0
        cdef Py_ssize_t[256] counts
        cdef Py_ssize_t[CLASSES] classes
        cdef double least = 0.0, most = 0.0, found, words, bytes_ = max(size, 1)
        if self._classes != CLASSES or len(rest) != 4:
            raise ValueError("not a reader of prompts")
        self._read(text, size)
        memset(counts, 0, sizeof(counts))
        for i in range(size):
            counts[text[i]] += 1
        for i in range(CLASSES):
            classes[i] = 0
            for j in range(self._class_size[i]):
                classes[i] += counts[self._class[i][j]]
        numbers = []
        while at < size:
            if SORT[text[at]] != DIGIT:
                at += 1
                continue
            end = number_end(text, at, size)
            found = number(text + at, end - at)
            if not numbers:
                least = most = found
            least, most = min(least, found), max(most, found)
            fractions += found != floor(found)
            large += found >= 1000.0
            numbers.append(found)
            at = end
        words = max(self._count, 1)
        vector = np.zeros(P_SIZE)
        cdef double[::1] out = vector
        out[0] = log1p(size)
        for i in range(CLASSES):
            out[P_CLASSES + i] = classes[i] / bytes_
        out[P_WORDS] = log1p(self._count)
        out[P_WORDS + 1] = log1p(classes[0] / words)  # letters come first
        out[P_WORDS + 2] = self._distinct / words
        for i in range(LEXICONS):
            out[P_LEXICONS + i] = log1p(self._of_kind[i])
        out[P_NUMBERS] = log1p(len(numbers))
        out[P_NUMBERS + 1] = log1p(most)
        out[P_NUMBERS + 2] = log1p(least)
        out[P_NUMBERS + 3] = <double> len(set(numbers)) / <double> max(len(numbers), 1)
        out[P_NUMBERS + 4] = log1p(fractions)
        out[P_NUMBERS + 5] = log1p(large)
        out[P_STEM] = log1p(words)
        out[P_END] = question
        out[P_END + 1] = counts[c"_"] >= 2
        out[P_END + 2] = counts[c"`"] >= 3 and contains(text, size, b"```")
        out[P_END + 3] = log1p(counts[c"="])
        for i in range(4):
            out[P_CONVERSATION + i] = rest[i]
        return vector, self._ngrams(), tuple(numbers)

    def draft(self, bytes raw, logprobs, tuple ended, bint ascii, double prompt_characters, double asked):
        """(features, n-grams, what is left to do) of a draft. `ended`: the three features of how it ended; `asked`: how
        many numbers the prompt holds."""
        cdef const unsigned char *text = raw
        cdef Py_ssize_t size = len(raw), i, words
        cdef int left
        if self._classes or len(ended) != 3:
            raise ValueError("not a reader of drafts")
        self._read(text, size)
        words = max(self._count, 1)
        ngrams = self._ngrams()
        vector = np.zeros(D_SIZE)
        cdef double[::1] out = vector
        out[D_HERE] = 1.0
        read_logprobs(logprobs, &out[D_LOGPROBS])
        for i in range(3):
            out[D_ENDED + i] = ended[i]
        out[D_BYTES] = log1p(size)
        out[D_WORDS] = log1p(self._count)
        out[D_TO_PROMPT] = log1p(size) - log1p(prompt_characters)
        out[D_DISTINCT] = <double> self._distinct / <double> words
        out[D_REPEATED_PAIRS] = self._repeated_pairs(ngrams)
        out[D_CONNECTIVES] = log1p(self._of_kind[CONNECTIVES])
        if ascii:
            left = self._shape(text, size, asked, &out[0])
        else:
            # What is white, a digit or a line to Python is another matter beyond ASCII.
            left = LEFT_LINES | LEFT_ANSWER | LEFT_CHOICES
        if self._of_kind[HEDGES] or contains(self._low, size, b"assum"):
            left |= LEFT_HEDGES
        if self._of_kind[REFUSALS]:
            left |= LEFT_REFUSALS
        return vector, ngrams, left

    cdef int _shape(self, const unsigned char *text, Py_ssize_t size, double asked, double *out) noexcept:
        """What a look at the lines of an ASCII draft shows; returns what it cannot."""
        cdef Py_ssize_t at = 0, end, first, last, lines = 0, questions = 0, slashes = 0
        cdef unsigned char final = 0
        cdef int left = 0
        cdef bint digits = False
        while at <= size:
            end = at
            while end < size and text[end] != c"\n":
                digits |= SORT[text[end]] == DIGIT
                questions += text[end] == c"?"
                slashes += text[end] == c"\\"
                end += 1
            first, last = at, end
            while first < last and BLANK[text[first]]:
                first += 1
            while first < last and BLANK[text[last - 1]]:
                last -= 1
            if last - first <= 4:
                left |= LEFT_CHOICES  # as short as `(C).`
            if first < last:
                lines += 1
                final = text[last - 1]
            at = end + 1
        if lines > 1:
            left |= LEFT_LINES
        if contains(self._low, size, b"answer"):
            left |= LEFT_ANSWER | LEFT_CHOICES
        elif digits or contains(text, size, b"####"):
            left |= LEFT_ANSWER
        out[D_LINES] = log1p(lines)
        out[D_EMPTY] = lines == 0
        out[D_BOXED] = contains(text, size, b"boxed")
        out[D_CLOSED] = final in (c".", c")", c"!", c"?", c"}", c"`")
        out[D_UNUSED] = min(asked, 8.0)
        out[D_QUESTIONS] = log1p(questions)
        out[D_LATEX] = log1p(slashes)
        return left


# --- Log-probabilities ----------------------------------------------------------------------------------------------

cdef struct Sum:  # after Neumaier: as good as math.fsum for numbers of like size
    double value
    double lost


cdef inline void add(Sum *total, double x) noexcept nogil:
    cdef double value = total.value + x
    total.lost += (total.value - value) + x if fabs(total.value) >= fabs(x) else (x - value) + total.value
    total.value = value


cdef int compare(const void *a, const void *b) noexcept nogil:
    cdef double x = (<const double *> a)[0], y = (<const double *> b)[0]
    return (x > y) - (x < y)


cdef int read_logprobs(object logprobs, double *out) except -1:
    """The 13 features, see `_logprob_features`."""
    cdef Py_ssize_t i, count = len(logprobs), last = count - 1, half = 0, tenth = 0
    cdef double value, mean, sum_
    cdef Sum total = Sum(0.0, 0.0), squares = Sum(0.0, 0.0)
    cdef double *values
    if count == 0:
        return 0
    values = <double *> PyMem_Malloc(count * sizeof(double))
    if values == NULL:
        raise MemoryError
    try:
        for i in range(count):
            value = logprobs[i]
            value = (value if value < 0.0 else 0.0) if value > -30.0 else -30.0  # NaN is greater than nothing
            values[i] = value
            add(&total, value)
            add(&squares, value * value)
            half += value < -0.693
            tenth += value < -2.303
        sum_ = total.value + total.lost
        mean = sum_ / count
        out[0] = 1.0
        out[1] = mean
        out[3] = values[0]
        out[4] = values[last]
        out[5] = max(sum_, -300.0)
        out[9] = sqrt(max((squares.value + squares.lost) / count - mean * mean, 0.0))
        out[10] = <double> half / <double> count
        out[11] = <double> tenth / <double> count
        out[12] = values[last]
        for i in range(max(last - 5, 0), last):
            out[12] = min(out[12], values[i])
        qsort(values, count, sizeof(double), compare)
        out[2] = values[0]
        out[6] = values[<Py_ssize_t> (0.10 * last)]
        out[7] = values[<Py_ssize_t> (0.25 * last)]
        out[8] = values[<Py_ssize_t> (0.50 * last)]
    finally:
        PyMem_Free(values)
    return 0


# --- From features to a score ---------------------------------------------------------------------------------------

cdef struct Node:
    double threshold
    int32_t feature
    int32_t next[2]


cdef class Stage:
    """`StageEstimators`, for one text at a time. Raises ValueError where arrays do not fit together."""

    cdef const float[::1] _idf
    cdef const float[:, ::1] _weights
    cdef const double[::1] _bias, _mean, _std, _linear_bias, _value, _base
    cdef const double[:, ::1] _linear
    cdef const int32_t[::1] _roots, _starts
    cdef Node *_nodes
    cdef int32_t *_counts  # of n-grams, all 0 between calls
    cdef int32_t *_found
    cdef Py_ssize_t _room, _depth
    cdef readonly Py_ssize_t inputs, outputs, ngram_outputs

    def __cinit__(self, ngrams, linear, forest):
        cdef Py_ssize_t i, count, depth = forest.depth
        cdef const double[::1] threshold = forest.threshold
        cdef const int32_t[::1] feature = forest.feature, children = forest.children
        self._idf, self._weights, self._bias = ngrams.idf, ngrams.weights, ngrams.bias
        self._mean, self._std, self._linear, self._linear_bias = linear.mean, linear.std, linear.weights, linear.bias
        self._value, self._base, self._roots, self._starts = forest.value, forest.base, forest.roots, forest.starts
        self.inputs, self.ngram_outputs, self._depth = len(self._mean), len(self._bias), depth
        self.outputs = len(self._bias) + len(self._linear_bias) + len(self._base)
        count = len(feature)
        if (
            self._weights.shape[0] != len(self._idf)
            or self._weights.shape[1] != len(self._bias)
            or len(self._std) != self.inputs
            or self._linear.shape[0] != self.inputs
            or self._linear.shape[1] != len(self._linear_bias)
            or not len(threshold) == len(self._value) == count
            or len(children) != 2 * count
            or len(self._starts) != len(self._base)
            or not within(feature, self.inputs)
            or not within(children, count)
            or not within(self._roots, count)
            or not within(self._starts, len(self._roots))
        ):
            raise ValueError("estimators that do not fit together")
        self._counts = <int32_t *> calloc(len(self._idf) + 1, sizeof(int32_t))
        self._nodes = <Node *> calloc(count + 1, sizeof(Node))
        if self._counts == NULL or self._nodes == NULL:
            raise MemoryError
        for i in range(count):
            self._nodes[i] = Node(threshold[i], feature[i], [children[2 * i], children[2 * i + 1]])

    def __dealloc__(self):
        free(self._nodes)
        free(self._counts)
        free(self._found)

    cdef int _count(self, const int64_t[::1] indices, double *out) except -1:
        """`NgramLinear` of one text."""
        cdef Py_ssize_t i, k, found = 0, size = len(indices)
        cdef int64_t index
        cdef double value, squares = 0.0
        if size > self._room:
            self._room = 0
            self._found = <int32_t *> realloc(self._found, size * sizeof(int32_t))
            if self._found == NULL:
                raise MemoryError
            self._room = size
        for i in range(size):
            if not 0 <= indices[i] < len(self._idf):
                raise IndexError("an n-gram outside the table")
        for k in range(self.ngram_outputs):
            out[k] = 0.0
        for i in range(size):
            index = indices[i]
            if self._idf[index] > 0.0:
                if self._counts[index] == 0:
                    self._found[found] = index
                    found += 1
                self._counts[index] += 1
        for i in range(found):
            index = self._found[i]
            value = self._idf[index]
            if self._counts[index] > 1:
                value *= 1.0 + log(self._counts[index])
            self._counts[index] = 0
            squares += value * value
            for k in range(self.ngram_outputs):
                out[k] += value * self._weights[index, k]
        squares = sqrt(max(squares, 1e-300))
        for k in range(self.ngram_outputs):
            out[k] = out[k] / squares + self._bias[k]
        return 0

    cdef void _estimate(self, const double *features, double *out) noexcept nogil:
        """`DenseLinear`, then `Forest`, over all inputs."""
        cdef Py_ssize_t i, k, step, tree, last, outputs = len(self._linear_bias)
        cdef double value
        cdef Node *node
        for k in range(outputs):
            out[k] = self._linear_bias[k]
        for i in range(self.inputs):
            value = cut((features[i] - self._mean[i]) / self._std[i], 5.0)
            for k in range(outputs):
                out[k] += value * self._linear[i, k]
        out += outputs
        for k in range(len(self._base)):
            value = 0.0
            last = self._starts[k + 1] if k + 1 < len(self._base) else len(self._roots)
            for tree in range(self._starts[k], last):
                node = &self._nodes[self._roots[tree]]
                for step in range(self._depth):  # a leaf is its own child
                    node = &self._nodes[node.next[features[node.feature] > node.threshold]]
                value += self._value[node - self._nodes]
            out[k] = value + self._base[k]


cdef bint within(const int32_t[::1] values, Py_ssize_t end) noexcept:
    cdef Py_ssize_t i
    for i in range(len(values)):
        if not 0 <= values[i] < end:
            return False
    return True


cdef inline double cut(double value, double most) noexcept nogil:
    return -most if value < -most else most if value > most else value


cdef class Forward:
    """Estimators and network of one step, for one request at a time."""

    cdef Stage _prompt, _draft
    cdef const double[::1] _mean, _std, _b1, _b2
    cdef const double[:, ::1] _skip, _w1, _w2
    cdef double *_row  # estimates, features
    cdef double *_seen  # what a stage sees
    cdef double *_hidden
    cdef Py_ssize_t _prompts, _drafts, _estimates, _size

    def __cinit__(self, Stage prompt not None, Stage draft, net):
        self._prompt, self._draft = prompt, draft
        self._mean, self._std, self._skip = net.mean, net.std, net.skip
        self._w1, self._b1, self._w2, self._b2 = net.joined
        self._prompts = prompt.inputs - prompt.ngram_outputs
        self._estimates, self._drafts = prompt.outputs, 0
        if draft is not None:
            self._drafts = draft.inputs - draft.ngram_outputs - prompt.inputs
            self._estimates += draft.outputs
        self._size = self._estimates + self._prompts + self._drafts
        if (
            self._prompts < 0
            or self._drafts < 0
            or not len(self._mean) == len(self._std) == self._size
            or self._skip.shape[0] != self._estimates + 1
            or self._skip.shape[1] < 2
            or self._w1.shape[0] != self._size + 2
            or self._w1.shape[1] != len(self._b1)
            or self._w2.shape[0] != len(self._b1)
            or self._w2.shape[1] != len(self._b2)
            or len(self._b2) < 2
        ):
            raise ValueError("a network that does not fit its estimators")
        self._row = <double *> calloc(self._size, sizeof(double))
        self._seen = <double *> calloc(self._size, sizeof(double))
        self._hidden = <double *> calloc(len(self._b1), sizeof(double))
        if self._row == NULL or self._seen == NULL or self._hidden == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self._row)
        free(self._seen)
        free(self._hidden)

    def __call__(
        self,
        const double[::1] prompt not None,
        const int64_t[::1] prompt_ngrams not None,
        const double[::1] draft not None,
        const int64_t[::1] draft_ngrams not None,
        double log_share,
        double price,
    ):
        """(what is plainly expected: quality, gains; what the network adds: staying, asking; expected cost): lists of
        floats and a float."""
        cdef Py_ssize_t before = self._prompt.outputs, counted = self._prompt.ngram_outputs, i
        cdef double *row = self._row
        cdef double *seen = self._seen
        if len(prompt) != self._prompts or len(draft) != self._drafts:
            raise ValueError("features of another size")
        memcpy(row + self._estimates, &prompt[0], self._prompts * sizeof(double))
        memcpy(seen, &prompt[0], self._prompts * sizeof(double))
        self._prompt._count(prompt_ngrams, row)
        memcpy(seen + self._prompts, row, counted * sizeof(double))
        self._prompt._estimate(seen, row + counted)
        if self._draft is not None:
            i = self._prompts
            memcpy(row + self._estimates + i, &draft[0], self._drafts * sizeof(double))
            memcpy(seen + i, &draft[0], self._drafts * sizeof(double))
            i += self._drafts
            memcpy(seen + i, row, counted * sizeof(double))
            i += counted
            counted = self._draft.ngram_outputs
            self._draft._count(draft_ngrams, row + before)
            memcpy(seen + i, row + before, counted * sizeof(double))
            self._draft._estimate(seen, row + before + counted)
        return self._network(log_share, price)

    cdef object _network(self, double log_share, double price):
        cdef Py_ssize_t i, k, units = len(self._b1), outputs = self._skip.shape[1], last = len(self._b2) - 1
        cdef double *hidden = self._hidden
        cdef const double *weights
        cdef double value
        plain = []
        for k in range(outputs):
            value = self._skip[self._estimates, k]
            for i in range(self._estimates):
                value += self._row[i] * self._skip[i, k]
            plain.append(value)
        memcpy(hidden, &self._b1[0], units * sizeof(double))
        for i in range(self._size + 2):
            if i < self._size:
                value = cut((self._row[i] - self._mean[i]) / self._std[i], 5.0)
            else:
                value = log_share if i == self._size else price
            weights = &self._w1[i, 0]
            for k in range(units):
                hidden[k] += value * weights[k]
        for k in range(units):
            hidden[k] = tanh(hidden[k])
        added = []
        for k in range(last + 1):
            value = self._b2[k]
            for i in range(units):
                value += hidden[i] * self._w2[i, k]
            added.append(value)
        return plain, added, 1.0 / (1.0 + exp(-cut(added.pop(), 30.0)))
