"""Templates in use render as written; those that mean harm end in one sentence."""

import datetime
import time

import pytest

from jaxlora.models import chat

CHAT = [
    {"role": "user", "content": "Hi "},
    {"role": "assistant", "content": "Yes?"},
    {"role": "user", "content": "2 + 2"},
]
SYSTEM = {"role": "system", "content": "Be brief."}

CHATML = """
{%- for m in messages %}
    {{- '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
"""
LLAMA = """{{- bos_token }}
{%- if not date_string is defined %}
    {%- set date_string = strftime_now("%d %b %Y") %}
{%- endif %}
{%- if tools is not none %}{{- raise_exception("tools") }}{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set told = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set told = "" %}
{%- endif %}
{{- "<|system|>Today: " + date_string + "\n" ~ told ~ "<|end|>" }}
{%- for message in messages %}
    {{- '<|' + message['role'] + '|>' + message['content'] | trim + '<|end|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>' }}{%- endif %}
"""
GEMMA = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}
{{ raise_exception('System role is
not supported') }}{% endif %}
{% for message in messages %}
  {% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
    {{ raise_exception('Roles must alternate') }}
  {% endif %}
  {% if message['role'] == 'assistant' %}
    {% set role = 'model' %}
  {% else %}
    {% set role = message['role'] %}
  {% endif %}
{{ '<turn>' + role + '\n' + message['content'] | trim + '<end>\n' -}}
{% endfor %}
{% if add_generation_prompt %}
{{ '<turn>model\n' -}}
{% endif %}
"""
REASONING = """{% set ns = namespace(last=0) %}
{%- for m in messages %}
    {%- if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}
{%- endfor %}
{%- for m in messages %}
    {%- if m.role == 'assistant' and loop.index0 < ns.last %}
        {{- '[' + m.content.split('</think>')[-1].lstrip('\n') + ']' }}
        {%- continue %}
    {%- endif %}
    {%- generation %}{{- '[' + m.content + ']' }}{%- endgeneration %}
    {%- if loop.last %}{% break %}{% endif %}
{%- endfor %}"""


@pytest.mark.parametrize("chat_end", [True, False])
def test_chatml(chat_end):
    text = chat.render(CHATML, CHAT, add_generation_prompt=chat_end)
    turns = ["user\nHi ", "assistant\nYes?", "user\n2 + 2"]
    expected = "".join(f"<|im_start|>{turn}<|im_end|>\n" for turn in turns)
    assert text == expected + "<|im_start|>assistant\n" * chat_end


def test_llama_like_has_bos_system_and_a_date_that_stands_still():
    special = {"bos_token": "<s>"}
    text = chat.render(LLAMA, [SYSTEM, *CHAT[:1]], special_tokens=special)
    told = "<s><|system|>Today: 26 Jul 2024\nBe brief.<|end|>"
    assert text == told + "<|user|>Hi<|end|><|assistant|>"
    today = datetime.date(2031, 1, 2)
    assert "02 Jan 2031" in chat.render(LLAMA, CHAT, today=today)


def test_gemma_like_trims_renames_and_refuses_in_its_own_words():
    text = chat.render(GEMMA, CHAT, special_tokens={"bos_token": "<b>"})
    turns = "<turn>user\nHi<end>\n<turn>model\nYes?<end>\n<turn>user\n2 + 2<end>\n"
    assert text == "<b>" + turns + "<turn>model\n"
    with pytest.raises(ValueError, match=r"roles system, user.*is not supported\.$"):
        chat.render(GEMMA, [SYSTEM, *CHAT[:1]])
    with pytest.raises(ValueError, match="Roles must alternate"):
        chat.render(GEMMA, [*CHAT, CHAT[0]])


def test_namespaces_loop_controls_and_the_generation_tag():
    said = "<think>hm</think>\n4"
    turns = [CHAT[0], {"role": "assistant", "content": said}]
    assert chat.render(REASONING, turns) == f"[Hi ][{said}]"
    assert chat.render(REASONING, [*turns, CHAT[0]]) == "[Hi ][4][Hi ]"


def test_json_is_not_escaped_for_html():
    turns = [{"role": "user", "content": "<é>", "extra": {"b": [1, None], "a": True}}]
    text = chat.render("{{ messages[0]|tojson }}", turns)
    assert text.endswith('"<é>", "extra": {"b": [1, null], "a": true}}')
    source = "{{ messages[0].extra|tojson(indent=2, sort_keys=true) }}"
    assert chat.render(source, turns).startswith('{\n  "a": true')


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ range(3)|join('-') }}{{ ', '.join(['a', 'b']) }}", "0-1-2a, b"),
        ("{{ 'a.b'|replace('.', '!') }}{{ 'a.a'.replace('a', 'b', 1) }}", "a!bb.a"),
        ("{{ 'a\nb\n\nc'|indent(2) }}|{{ 'a\nb'|indent(1, true) }}", None),
        ("{{ messages|map(attribute='role')|unique|join(' ') }}", "user assistant"),
        ("{{ messages|selectattr('role', 'equalto', 'user')|list|length }}", "2"),
        ("{{ messages[::-1][0].content }}{{ 3 * 2 }}{{ 7 % 4 }}{{ '=' * 3 }}", None),
        ("{% for k, v in messages[1].items() %}{{ k }}={{ v }};{% endfor %}", None),
        ("{% for x in nothing %}{% else %}none{% endfor %}", "none"),
        ("{% for m in messages %}{{ loop.revindex }}{{ loop.last }}{% endfor %}", None),
        ("{% macro f(x) %}<{{ x }}>{% endmacro %}{{ f('a') }}{{ f(x='b') }}", "<a><b>"),
        ("{{ 'x' if 'Hi' in messages[0].content else 'y' }}", "x"),
        ("{{ '<{}>{x}{{}}'.format(messages[0].role, x=3) }}", "<user>3{}"),
        ("{{ '<%s>%d%%' % (messages[0].role, 3) }}{{ '%s' % 'a' }}", "<user>3%a"),
        ("{{ '%s-%s' | format('a', 1) }}{{ '%(x)s' | format(x=2) }}", "a-12"),
        ("{{ 2.6|round|int }}{{ messages[2].content|wordcount }}", "32"),
        ("{{ 2.55|round(1, 'floor') }}{{ 15|round(-1) }}", "2.520"),
        ("{% for r, m in messages|groupby('role') %}{{ r }}{% endfor %}", None),
        (
            "{% for x in messages|groupby('role') %}{{ x.grouper }}"
            "{{ x.list|length }}{% endfor %}",
            None,
        ),
    ],
)
def test_what_templates_use_is_as_in_plain_jinja(source, expected):
    import jinja2

    plain = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    wanted = plain.from_string(source).render(messages=CHAT)
    assert expected in (None, wanted)
    assert chat.render(source, CHAT) == wanted


MACRO = "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}"
LOOP = "{% for i in range(99999) %}"
GROW = "{% set ns = namespace(s='aa') %}{% for i in range(99) %}{% set ns.s = "
BIG = "{% set x = 'a' * 1000000 %}"
TWICE = GROW + "(ns.s, ns.s) %}{% endfor %}"
DEEP = GROW.replace("99", "9999") + "((((ns.s,),),),) %}{% endfor %}"
UNSAFE = "refused as unsafe"
WORK = "more work or memory"
MALICIOUS = [
    ("{{ ''.__class__.__mro__ }}", "'__class__' of a str is not allowed"),
    ("{{ ''.__class__ }}", UNSAFE),
    ("{{ ''['__class__'] }}", UNSAFE),
    ("{{ ''|attr('__class__') }}", "No filter named 'attr'"),
    ("{{ messages|map(attribute='__class__')|list }}", UNSAFE),
    ("{{ namespace.__init__.__globals__ }}", UNSAFE),
    ("{{ raise_exception.__globals__ }}", UNSAFE),
    ("{{ cycler.__init__.__globals__.os.system('true') }}", UNSAFE),
    ("{{ messages.append(1) }}", UNSAFE),
    ("{{ (5).to_bytes(1000000000) }}", UNSAFE),
    ("{{ '{:1000000000}'.format(1) }}", UNSAFE),
    ("{{ '%1000000000d' % 1 }}", UNSAFE),
    ("{{ '%*d' % (1000000000, 1) }}", UNSAFE),
    ("{{ '%1000000000d' | format(1) }}", UNSAFE),
    ("{{ '{0.__class__}'.format(1) }}", UNSAFE),
    ("{{ '{0[a]}'.format({'a': 1}) }}", UNSAFE),
    ("{{ '{!r:>99999999}'.format(1) }}", UNSAFE),
    ("{{ '{} {}'.format(1) }}", "a format has other fields"),
    ("{{ ('{0}' * 10000).format('a' * 10000) }}", WORK),
    ("{{ ('%(a)s' * 10000) % {'a': 'a' * 10000} }}", WORK),
    ("{{ ('%(' * 400000) % 1 }}", UNSAFE),
    ("{{ 5|round(-1000000000) }}", UNSAFE),
    ("{{ 'a'.ljust(1000000000) }}", UNSAFE),
    ("{{ 'a'|center(1000000000) }}", "No filter named 'center'"),
    ("{{ messages|map('center', 1000000000)|list }}", "No filter named 'center'"),
    ("{{ 'a'|indent(1000000000) }}", UNSAFE),
    ("{{ [1]|tojson(indent=1000000000) }}", UNSAFE),
    ("{{ strftime_now('%1000000000d') }}", UNSAFE),
    ("{{ 9**9**9 }}", UNSAFE),
    (GROW.replace("'aa'", "3") + "ns.s * ns.s %}{% endfor %}", UNSAFE),
    ("{% for x in messages recursive %}{{ loop([x]) }}{% endfor %}", UNSAFE),
    ("{% for i in range(10000000000) %}{% endfor %}", "Range too big"),
    (LOOP + LOOP + "{% endfor %}{% endfor %}", WORK),
    (LOOP + "{{ range(99999)|list|length }}{% endfor %}", WORK),
    (LOOP + "{{ range(99999)|map('string')|list|length }}{% endfor %}", WORK),
    (MACRO + "{{ f(60) }}", WORK),
    (MACRO + "{{ f(100000) }}", "RecursionError"),
    ("{{ 'a' * 10000000000 }}", WORK),
    ("{{ 10000000000 * [1] }}", WORK),
    (GROW + "ns.s ~ ns.s %}{% endfor %}", WORK),
    (GROW + "ns.s + ns.s %}{% endfor %}", WORK),
    (GROW + "[ns.s, ns.s] %}{% endfor %}{{ ns.s }}", WORK),
    (GROW + "[ns.s, ns.s] %}{% endfor %}{{ ns.s|tojson }}", WORK),
    (GROW + "[ns.s, ns.s] %}{% endfor %}{{ ns.s|upper }}", WORK),
    (TWICE + "{% set x = {ns.s: 1} %}", WORK),
    (TWICE + "{{ ns.s == 1 }}", WORK),
    (TWICE + "{{ [1].count(ns.s) }}", WORK),
    (TWICE + "{{ [ns.s].count(1) }}", WORK),
    (DEEP + "{% set x = {ns.s: 1} %}", UNSAFE),
    (DEEP + "{{ {1: 2}.get(ns.s) }}", UNSAFE),
    (DEEP + "{{ {1: 2}[ns.s] }}", "a tuple is no key"),
    (DEEP + "{{ [{1: 2}]|map(attribute=ns.s)|list }}", "a tuple is no key"),
    (DEEP + "{{ ns.s in {1: 2} }}", "nested more than 200 deep"),
    (DEEP + "{{ dict([(ns.s, 1)]) }}", UNSAFE),
    (DEEP + "{{ [ns.s]|unique|list }}", UNSAFE),
    (BIG + "{{ x.replace('a', x) }}", WORK),
    (BIG + "{{ x|replace('a', x) }}", WORK),
    (BIG + "{{ x.join(range(99999)) }}", WORK),
    (BIG + "{{ range(99999)|join(x) }}", WORK),
    (BIG + LOOP + "{{ x }}{% endfor %}", WORK),
    (BIG + "{% set y %}" + LOOP + "{{ x }}{% endfor %}{% endset %}", WORK),
    (BIG + LOOP + "{% set y = x[1:] %}{% endfor %}", WORK),
    (BIG + LOOP + "{{ 'b' in x }}{% endfor %}", WORK),
    (LOOP + "a" * 10000 + "{% endfor %}", WORK),
    ("{% include '/etc/passwd' %}", "no loader"),
    ("{% import 'os' as os %}", "no loader"),
    ("{{" + "(" * 5000 + ")" * 5000 + "}}", "RecursionError"),
    ("{% if %}", "no valid Jinja, line 1"),
    ("\n{{ 'a }}", "no valid Jinja, line 2"),
    ("{{ nope.role }}", "'nope' is undefined"),
    ("a" * 200_001, "has 200001 characters"),
]


@pytest.mark.parametrize(("source", "reason"), MALICIOUS, ids=range(len(MALICIOUS)))
def test_harm_ends_in_one_sentence_and_soon(source, reason):
    start = time.process_time()
    with pytest.raises(ValueError, match=r"^The chat template [^\n]*[.?]$") as caught:
        chat.render(source, CHAT)
    assert reason in str(caught.value)
    assert time.process_time() - start < 20


def test_fuel_is_per_rendering():
    source = LOOP + "{% endfor %}done"
    assert [chat.render(source, CHAT) for _ in range(6)] == ["done"] * 6


def test_a_long_conversation_is_no_harm():
    turns = [{"role": "user", "content": "word " * 2000}, CHAT[1]] * 100
    assert len(chat.render(CHATML, turns)) > 1_000_000
    assert len(chat.render(GEMMA, turns)) > 990_000


@pytest.mark.parametrize("bad", [{"role": "user"}, {"role": 1, "content": "a"}])
def test_messages_are_strings(bad):
    with pytest.raises(ValueError, match=r"Message 1 has (role|content)"):
        chat.render(CHATML, [CHAT[0], bad])


def test_the_plain_template_ends_each_answer():
    text = chat.render(chat.PLAIN, CHAT, special_tokens={"eos_token": "<eos>"})
    assert text == "User: Hi \nAssistant: Yes?<eos>\nUser: 2 + 2\nAssistant:"
