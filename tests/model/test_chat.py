"""Chat templates: equal to transformers for honest ones, a quick sentence for hostile ones."""

from __future__ import annotations

import pytest

from trilaw.core.errors import ModelError, RequestError
from trilaw.core.types import Message
from trilaw.model.chat import MAX_SOURCE, render

TALK: list[Message] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": " What is 2+2? <b>é</b> "},
    {"role": "assistant", "content": "<think>easy</think>\n4"},
    {"role": "user", "content": "And 3+3?"},
]

HONEST = {
    "llama3": """{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" ~ system ~ "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}""",
    "thinking": """{%- set ns = namespace(last=messages|length - 1, seen=false) -%}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if not ns.seen and message.role == "user" and message.content is string %}
        {%- set ns.seen = true %}{%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- macro turn(role, content, mark='') -%}<{{ role }}{{ mark }}>{{ content }}</{{ role }}>{%- endmacro %}
{% for message in messages %}
    {%- set content = message.content.split('</think>')[-1].lstrip('\\n') if message.role == 'assistant' else message.content %}
    {%- if loop.index0 == ns.last %}{{ turn(message.role, content, '!') }}{% continue %}{% endif %}
    {{ turn(message.role, content) }}
{% endfor %}
{% for m in messages if m.role in ['user', 'system'] %}{{ loop.index }}{% if loop.last %}.{% endif %}{% endfor %}
{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | join('|') }}
{{ messages | map(attribute='role') | list | tojson }} {{ messages[0] | tojson(indent=2) }}
{% generation %}{{ 'x'.replace('x', 'y').upper() * 3 }}{% endgeneration %} {{ tools is none }} {{ undefined_thing is defined }}""",
}

HOSTILE = {
    "attribute walk": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals of an object": "{{ namespace.__init__.__globals__ }}",
    "globals of the template": "{{ self.__init__.__globals__ }}",
    "attr filter": "{{ '' | attr('__class__') }}",
    "format string walk": "{{ '{0.__class__}'.format(1) }}",
    "changes the messages": "{{ messages.append(1) }}",
    "long range": "{% for i in range(10**9) %}{% endfor %}",
    "nested loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "nested loop filters": "{% for i in range(99999) %}{% for j in range(99999) if false %}{% endfor %}{% endfor %}",
    "deep recursion": "{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}",
    "wide recursion": "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "recursive loop": "{% for a in [[1, 2]] recursive %}{{ loop([a, a]) }}{% endfor %}",
    "long string": "{{ 'a' * 10000000000 }}",
    "long list": "{{ [1] * 10000000000 }}",
    "long number": "{{ 9 ** 9 ** 9 }}",
    "number by doubling": "{% set ns=namespace(x=9) %}{% for i in range(99) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "doubling by ~": "{% set ns=namespace(x='aa') %}{% for i in range(90) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "doubling by +": "{% set ns=namespace(x='aa') %}{% for i in range(90) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "doubling by join": "{% set ns=namespace(x='aa') %}{% for i in range(90) %}{% set ns.x = [ns.x, ns.x]|join %}{% endfor %}",
    "doubling by replace": "{% set x = 'a' * 3000 %}{{ x.replace('', x).replace('', x) }}",
    "doubling by lists": "{% set ns=namespace(x=[1]) %}{% for i in range(90) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
    "lists in JSON": "{% set ns=namespace(x=[1]) %}{% for i in range(90) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x|tojson }}",
    "comparison of doubled lists": "{% set ns=namespace(x=[1], y=[1]) %}{% for i in range(90) %}{% set ns.x = [ns.x, ns.x] %}"
    "{% set ns.y = [ns.y, ns.y] %}{% endfor %}{{ ns.x == ns.y }}",
    "search in long strings": "{% set x = 'a' * 3000000 %}{% for i in range(9999) %}{{ x in x }}{% endfor %}",
    "slices of long strings": "{% set x = 'a' * 3000000 %}{% for i in range(9999) %}{% set y = x[1:] %}{% endfor %}",
    "methods on long strings": "{% set x = 'a' * 3000000 %}{% for i in range(9999) %}{% set y = x.upper() %}{% endfor %}",
    "filters on long strings": "{% set x = 'a' * 3000000 %}{% for i in range(9999) %}{% set y = x|upper %}{% endfor %}",
    "much output": "{% set x = 'a' * 3000000 %}{{ x }}{{ x }}",
    "width in a format": "{{ '{:>1000000000}'.format(1) }}",
    "width by %": "{{ '%1000000000d' % 1 }}",
    "padding": "{{ 'x'.ljust(1000000000) }}",
    "bytes": "{{ (1).to_bytes(1000000000, 'big') }}",
    "files": "{% include '/etc/passwd' %}",
    "parentheses": "{{" + "(" * 9000 + "1" + ")" * 9000 + "}}",
    "not jinja": "{% if %}",
    "huge source": "a" * (MAX_SOURCE + 1),
    "fails": "{{ messages[99].content.strip() }}",
}


@pytest.mark.parametrize("name", HONEST)
@pytest.mark.parametrize("generation", [True, False])
def test_honest_templates_equal_transformers(name: str, generation: bool) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    names = {"bos_token": "<s>", "eos_token": "</s>"}
    expected, _ = render_jinja_template([TALK], chat_template=HONEST[name], add_generation_prompt=generation, **names)
    assert render(HONEST[name], TALK, names, generation=generation) == expected[0]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_templates_end_in_a_sentence(name: str) -> None:
    with pytest.raises(ModelError, match="chat template"):
        render(HOSTILE[name], TALK)


def test_a_stopped_template_leaves_the_next_rendering_alone() -> None:
    with pytest.raises(ModelError):
        render(HOSTILE["nested loops"], TALK)
    assert render("{% for m in messages %}{{ m.role[0] }}{% endfor %}", TALK) == "suau"


def test_a_template_may_refuse_a_conversation_in_its_own_words() -> None:
    with pytest.raises(RequestError, match="roles must alternate"):
        render("{{ raise_exception('roles must alternate') }}", TALK)


def test_a_name_set_by_the_template_does_not_stop_the_counting() -> None:
    with pytest.raises(ModelError):
        render(
            "{% set environment = 1 %}{% set step = 1 %}{% macro weigh(x) %}{% endmacro %}" + HOSTILE["nested loops"],
            TALK,
        )


def test_without_a_template_contents_are_joined() -> None:
    assert render(None, TALK[:2]) == "Be brief.\n What is 2+2? <b>é</b> "


def test_the_messages_given_are_not_changed_and_the_date_is_there() -> None:
    assert len(render("{{ strftime_now('%Y-%m-%d') }}", TALK)) == 10
