"""Names languages by their codes of two letters (ISO 639-1)."""

from __future__ import annotations

from decodery.errors import ParameterError

# The names in English.
_TABLE = """
af=Afrikaans am=Amharic ar=Arabic as=Assamese az=Azerbaijani be=Belarusian bg=Bulgarian bn=Bengali
bo=Tibetan br=Breton bs=Bosnian ca=Catalan cs=Czech cy=Welsh da=Danish de=German dz=Dzongkha
el=Greek en=English eo=Esperanto es=Spanish et=Estonian eu=Basque fa=Persian fi=Finnish fr=French
ga=Irish gd=Gaelic gl=Galician gu=Gujarati ha=Hausa he=Hebrew hi=Hindi hr=Croatian hu=Hungarian
hy=Armenian id=Indonesian ig=Igbo is=Icelandic it=Italian iu=Inuktitut ja=Japanese ka=Georgian
kk=Kazakh km=Khmer kn=Kannada ko=Korean ku=Kurdish ky=Kirghiz la=Latin lb=Luxembourgish lo=Lao
lt=Lithuanian lv=Latvian mg=Malagasy mi=Maori mk=Macedonian ml=Malayalam mn=Mongolian mr=Marathi
ms=Malay mt=Maltese my=Burmese nb=Norwegian ne=Nepali nl=Dutch nn=Norwegian no=Norwegian oc=Occitan
om=Oromo or=Oriya pa=Panjabi pl=Polish ps=Pushto pt=Portuguese ro=Romanian ru=Russian rw=Kinyarwanda
se=Sami sh=Serbo-Croatian si=Sinhala sk=Slovak sl=Slovenian sn=Shona so=Somali sq=Albanian
sr=Serbian sv=Swedish sw=Swahili ta=Tamil te=Telugu tg=Tajik th=Thai tk=Turkmen tl=Tagalog
tr=Turkish tt=Tatar ug=Uighur uk=Ukrainian ur=Urdu uz=Uzbek vi=Vietnamese wa=Walloon xh=Xhosa
yi=Yiddish yo=Yoruba zh=Chinese zu=Zulu
"""
NAMES = dict(pair.split("=") for pair in _TABLE.split())


def named_language(text: str) -> tuple[str, str]:
    """Returns the code and the English name of a language that is written "de", or "deu_Latn=German".

    Raises `ParameterError` for a code without a name.
    """
    code, _, name = text.partition("=")
    found = name or NAMES.get(code)
    if not code or not found:
        raise ParameterError(f"there is no name for the language {text!r}: write CODE=NAME, as in deu=German")
    return code, found
