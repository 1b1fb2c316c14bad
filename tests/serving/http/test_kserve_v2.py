"""The Open Inference Protocol, tested with Triton's own client."""

from collections.abc import Iterator

import httpx
import numpy as np
import numpy.typing as npt
import pytest
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException


@pytest.fixture
def triton(client: httpx.Client) -> Iterator[InferenceServerClient]:
    triton = InferenceServerClient(f"{client.base_url.host}:{client.base_url.port}")
    yield triton
    triton.close()


def inputs(a: npt.NDArray[np.generic], b: npt.NDArray[np.generic], *, binary: bool) -> list[InferInput]:
    tensors = []
    for name, values in (("a", a), ("b", b)):
        datatype = {"float64": "FP64", "float32": "FP32", "int64": "INT64", "object": "BYTES"}[
            values.dtype.name
        ]
        tensor = InferInput(name, list(values.shape), datatype)
        tensor.set_data_from_numpy(values, binary_data=binary)
        tensors.append(tensor)
    return tensors


def test_health_and_metadata(triton: InferenceServerClient) -> None:
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready("line")
    assert triton.is_model_ready("line", "1")
    assert not triton.is_model_ready("line", "9")
    assert triton.get_server_metadata()["name"] == "headwater"
    metadata = triton.get_model_metadata("line")
    assert metadata["versions"] == ["1"]
    assert metadata["inputs"] == [
        {"name": "a", "datatype": "FP64", "shape": [-1]},
        {"name": "b", "datatype": "FP64", "shape": [-1]},
    ]


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_json_and_binary_tensors_get_the_same_answers(
    triton: InferenceServerClient, client: httpx.Client, binary: bool, shape: tuple[int, ...]
) -> None:
    a, b = np.array([0.5, 1.0, -2.0]), np.array([1.5, 0.0, 0.25])
    tensors = inputs(a.reshape(shape), b.reshape(shape), binary=binary)
    found = triton.infer("line", tensors, request_id="r")
    items = [{"features": {"a": x, "b": y}} for x, y in zip(a, b, strict=True)]
    ours = client.post("/predict", json={"predictions": items}).json()["predictions"]
    assert found.as_numpy("output").tolist() == [one["output"] for one in ours]
    assert found.as_numpy("prediction_id").tolist() == ["r-0", "r-1", "r-2"]
    assert found.as_numpy("probabilities")[:, 1].tolist() == [one["output"] for one in ours]
    assert client.get("/predictions/r-1").json()["prediction"]["features"] == {"a": 1.0, "b": 0.0}


def test_other_number_types_are_accepted_as_floats(triton: InferenceServerClient) -> None:
    tensors = inputs(np.array([1], dtype=np.int64), np.array([0.5], dtype=np.float32), binary=True)
    found = triton.infer("line", tensors, outputs=[InferRequestedOutput("output", binary_data=True)])
    assert found.as_numpy("output").shape == (1,)


@pytest.mark.parametrize("binary", [True, False])
def test_an_invalid_request_is_an_error_of_the_protocol(
    triton: InferenceServerClient, binary: bool
) -> None:
    one, two = np.array([1.0]), np.array([1.0, 2.0])
    with pytest.raises(InferenceServerException, match="it lacks `b`"):
        triton.infer("line", inputs(one, one, binary=binary)[:1])
    with pytest.raises(InferenceServerException, match="rows"):
        triton.infer("line", inputs(one, two, binary=binary))
    with pytest.raises(InferenceServerException, match="expected `float`"):
        triton.infer("line", inputs(one, np.array(["x"], dtype=np.object_), binary=binary))
    with pytest.raises(InferenceServerException, match="no pipeline 'other'"):
        triton.infer("other", inputs(one, one, binary=binary))


def _tensor(data: bytes, name: bytes = b"a") -> bytes:
    return b'{"name": "%s", "shape": [1], "datatype": "FP64", "data": [%s]}' % (name, data)


def _asking(*tensors: bytes) -> bytes:
    return b'{"inputs": [%s]}' % b", ".join(tensors)


BAD = [
    b"",
    b"{",
    b"[]",
    b'{"inputs": []}',
    b'{"inputs": [{"name": "a", "shape": [-1], "datatype": "FP64"}]}',
    _asking(_tensor(b"1" + b"0" * 400), _tensor(b"1", b"b")),
    _asking(_tensor(b"[" * 500 + b"]" * 500), _tensor(b"1", b"b")),
    _asking(_tensor(b"1"), _tensor(b"2"), _tensor(b"1", b"b")),
]


@pytest.mark.parametrize("body", BAD, ids=range(len(BAD)))
@pytest.mark.parametrize("length", [None, "2", "x", "99999999999999999999", "-1"])
def test_damaged_bodies_are_refused(client: httpx.Client, body: bytes, length: str | None) -> None:
    headers = {} if length is None else {"Inference-Header-Content-Length": length}
    answer = client.post("/v2/models/line/infer", content=body, headers=headers)
    assert answer.status_code == 422
    assert answer.json()["error"]


def test_lengths_of_binary_data_are_checked(client: httpx.Client) -> None:
    for size in (-1, 7, 9, 10**9, "8", True):
        head = httpx.Request(
            "POST",
            "http://x",
            json={
                "inputs": [
                    {
                        "name": "a",
                        "shape": [1],
                        "datatype": "FP64",
                        "parameters": {"binary_data_size": size},
                    }
                ]
            },
        ).content
        headers = {"Inference-Header-Content-Length": str(len(head))}
        answer = client.post("/v2/models/line/infer", content=head + b"12345678", headers=headers)
        assert answer.status_code == 422


def test_a_deeply_nested_body_is_refused_at_once(client: httpx.Client) -> None:
    deep = _asking(_tensor(b"1," * 900_000 + b"[" * 500 + b"1" + b"]" * 500))
    head = (
        b'{"inputs": [{"name": "a", "shape": [1], "datatype": "BYTES", '
        b'"parameters": {"binary_data_size": 1900000}}]}'
    )
    length = {"Inference-Header-Content-Length": str(len(head))}
    for body, headers in ((deep, {}), (head + bytes(1_900_000), length)):
        answer = client.post("/v2/models/line/infer", content=body, headers=headers, timeout=15)
        assert answer.status_code == 422
        assert "shape [1]" in answer.json()["error"]


def test_a_long_shape_of_large_numbers_is_refused_at_once(client: httpx.Client) -> None:
    shape = [1, *[2**63 - 1] * 90_000]
    tensor = {"name": "a", "shape": shape, "datatype": "FP64", "data": [1.0]}
    answer = client.post("/v2/models/line/infer", json={"inputs": [tensor]})
    assert answer.status_code == 422
    assert "shape [1, 9223372036854775807" in answer.json()["error"]
