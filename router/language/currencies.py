"""Money as people write it. Only the US dollar has a rate of its own; the others are the operator's to configure."""

SIGNS = {"$": "USD", "us$": "USD", "€": "EUR", "£": "GBP", "¥": "JPY", "₹": "INR", "₩": "KRW", "元": "CNY"}
_CODES = (
    "USD EUR GBP JPY CNY KRW INR AUD CAD CHF SEK NOK DKK PLN BRL MXN SGD HKD TWD NZD ZAR THB IDR VND PHP AED CZK ILS"
)
CODES = tuple(_CODES.split())
ENGLISH = {
    "dollar": "USD",
    "dollars": "USD",
    "us dollars": "USD",
    "bucks": "USD",
    "euro": "EUR",
    "euros": "EUR",
    "pound": "GBP",
    "pounds": "GBP",
    "yen": "JPY",
    "francs": "CHF",
    "swiss francs": "CHF",
    "rupees": "INR",
    "yuan": "CNY",
    "won": "KRW",
}
JAPANESE = {
    "米ドル": "USD",
    "ドル": "USD",
    "ユーロ": "EUR",
    "ポンド": "GBP",
    "円": "JPY",
    "元": "CNY",
    "ウォン": "KRW",
    "ルピー": "INR",
    "スイスフラン": "CHF",
}
