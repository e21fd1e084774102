"""A workflow as a Mermaid flowchart. Pure. https://mermaid.js.org/syntax/flowchart.html"""

from collections.abc import Iterator, Mapping

from shared.workflows.graph import Graph, Kind, Node, Scope, edges

_CLASSES = {"s": "running", "r": "running", "e": "running", "a": "asked", "d": "done", "p": "done", "f": "failed"}
_STYLES = (
    "classDef running fill:#dbeafe,stroke:#2563eb",
    "classDef asked fill:#fef3c7,stroke:#b45309",
    "classDef done fill:#dcfce7,stroke:#15803d",
    "classDef failed fill:#fee2e2,stroke:#b91c1c",
)


def flowchart(graph: Graph, states: Mapping[str, str] | None = None) -> str:
    """Return the chart; `states`: tasks' letters, which colour them."""
    lines = ["flowchart TD", *(f"  {line}" for line in _scope(graph, graph.root))]
    if states:
        lines += [f"  {style}" for style in _STYLES]
        lines += [
            f"  class {_id(name)} {_CLASSES[letter]}"
            for name, letter in states.items()
            if letter in _CLASSES and name in graph.nodes
        ]
    return "\n".join(lines) + "\n"


def _scope(graph: Graph, scope: Scope) -> Iterator[str]:
    for node in scope.nodes:
        if inner := graph.scopes.get(node.name):
            yield f'subgraph {_id(node.name)}["{_text(node.output)}"]'
            for line in _scope(graph, inner):
                yield f"  {line}"
            yield "end"
        else:
            yield _box(node)
    for earlier, later in edges(scope):
        yield f"{_id(earlier)} --> {_id(later)}"


def _box(node: Node) -> str:
    label = _text(f"{node.output}\n{node.task.model}" if node.task.model else node.output)
    match node.kind:
        case Kind.APPROVAL:
            return f'{_id(node.name)}{{"{label}"}}'
        case Kind.FAN:
            return f'{_id(node.name)}[["{label}"]]'
    return f'{_id(node.name)}["{label}"]'


def _id(name: str) -> str:
    return "t" + name.replace("-", "x")


def _text(text: str) -> str:
    """Return a label's text with what Mermaid would read escaped."""
    return "".join(f"#{ord(one)};" if one in '"#&<>;{}[]()|`' else "<br>" if one == "\n" else one for one in text)
