from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Stop(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STOP_UNSPECIFIED: _ClassVar[Stop]
    STOP_CONVERGED: _ClassVar[Stop]
    STOP_VERIFIED: _ClassVar[Stop]
    STOP_EXHAUSTED: _ClassVar[Stop]

class Halt(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    HALT_UNSPECIFIED: _ClassVar[Halt]
    HALT_RESIDUAL: _ClassVar[Halt]
    HALT_Q: _ClassVar[Halt]
    HALT_UNCHANGED: _ClassVar[Halt]

class Selection(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SELECTION_UNSPECIFIED: _ClassVar[Selection]
    SELECTION_RESIDUAL: _ClassVar[Selection]
    SELECTION_MAJORITY: _ClassVar[Selection]

class Include(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    INCLUDE_UNSPECIFIED: _ClassVar[Include]
    INCLUDE_TRAJECTORIES: _ClassVar[Include]
    INCLUDE_HISTORY: _ClassVar[Include]

class JobState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    JOB_STATE_UNSPECIFIED: _ClassVar[JobState]
    JOB_STATE_QUEUED: _ClassVar[JobState]
    JOB_STATE_RUNNING: _ClassVar[JobState]
    JOB_STATE_DONE: _ClassVar[JobState]
    JOB_STATE_FAILED: _ClassVar[JobState]
    JOB_STATE_CANCELLED: _ClassVar[JobState]
    JOB_STATE_EXPIRED: _ClassVar[JobState]
STOP_UNSPECIFIED: Stop
STOP_CONVERGED: Stop
STOP_VERIFIED: Stop
STOP_EXHAUSTED: Stop
HALT_UNSPECIFIED: Halt
HALT_RESIDUAL: Halt
HALT_Q: Halt
HALT_UNCHANGED: Halt
SELECTION_UNSPECIFIED: Selection
SELECTION_RESIDUAL: Selection
SELECTION_MAJORITY: Selection
INCLUDE_UNSPECIFIED: Include
INCLUDE_TRAJECTORIES: Include
INCLUDE_HISTORY: Include
JOB_STATE_UNSPECIFIED: JobState
JOB_STATE_QUEUED: JobState
JOB_STATE_RUNNING: JobState
JOB_STATE_DONE: JobState
JOB_STATE_FAILED: JobState
JOB_STATE_CANCELLED: JobState
JOB_STATE_EXPIRED: JobState

class Budget(_message.Message):
    __slots__ = ("depth", "breadth", "nfe", "deadline_ms", "tolerance", "stop", "halt", "patience")
    DEPTH_FIELD_NUMBER: _ClassVar[int]
    BREADTH_FIELD_NUMBER: _ClassVar[int]
    NFE_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    TOLERANCE_FIELD_NUMBER: _ClassVar[int]
    STOP_FIELD_NUMBER: _ClassVar[int]
    HALT_FIELD_NUMBER: _ClassVar[int]
    PATIENCE_FIELD_NUMBER: _ClassVar[int]
    depth: int
    breadth: int
    nfe: int
    deadline_ms: float
    tolerance: float
    stop: Stop
    halt: Halt
    patience: int
    def __init__(self, depth: _Optional[int] = ..., breadth: _Optional[int] = ..., nfe: _Optional[int] = ..., deadline_ms: _Optional[float] = ..., tolerance: _Optional[float] = ..., stop: _Optional[_Union[Stop, str]] = ..., halt: _Optional[_Union[Halt, str]] = ..., patience: _Optional[int] = ...) -> None: ...

class SolveRequest(_message.Message):
    __slots__ = ("grid", "task", "model", "budget", "seed", "noise", "selection", "priority", "include", "skip_cache")
    GRID_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    NOISE_FIELD_NUMBER: _ClassVar[int]
    SELECTION_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_FIELD_NUMBER: _ClassVar[int]
    SKIP_CACHE_FIELD_NUMBER: _ClassVar[int]
    grid: str
    task: str
    model: str
    budget: Budget
    seed: int
    noise: float
    selection: Selection
    priority: int
    include: _containers.RepeatedScalarFieldContainer[Include]
    skip_cache: bool
    def __init__(self, grid: _Optional[str] = ..., task: _Optional[str] = ..., model: _Optional[str] = ..., budget: _Optional[_Union[Budget, _Mapping]] = ..., seed: _Optional[int] = ..., noise: _Optional[float] = ..., selection: _Optional[_Union[Selection, str]] = ..., priority: _Optional[int] = ..., include: _Optional[_Iterable[_Union[Include, str]]] = ..., skip_cache: _Optional[bool] = ...) -> None: ...

class BreadthCount(_message.Message):
    __slots__ = ("started", "converged", "lost")
    STARTED_FIELD_NUMBER: _ClassVar[int]
    CONVERGED_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    started: int
    converged: int
    lost: int
    def __init__(self, started: _Optional[int] = ..., converged: _Optional[int] = ..., lost: _Optional[int] = ...) -> None: ...

class Timing(_message.Message):
    __slots__ = ("queue", "solve", "total")
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    SOLVE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    queue: float
    solve: float
    total: float
    def __init__(self, queue: _Optional[float] = ..., solve: _Optional[float] = ..., total: _Optional[float] = ...) -> None: ...

class Trajectory(_message.Message):
    __slots__ = ("index", "wave", "iterations", "residual", "converged", "verified", "outcome", "text", "history")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    WAVE_FIELD_NUMBER: _ClassVar[int]
    ITERATIONS_FIELD_NUMBER: _ClassVar[int]
    RESIDUAL_FIELD_NUMBER: _ClassVar[int]
    CONVERGED_FIELD_NUMBER: _ClassVar[int]
    VERIFIED_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    index: int
    wave: int
    iterations: int
    residual: float
    converged: bool
    verified: bool
    outcome: str
    text: str
    history: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, index: _Optional[int] = ..., wave: _Optional[int] = ..., iterations: _Optional[int] = ..., residual: _Optional[float] = ..., converged: _Optional[bool] = ..., verified: _Optional[bool] = ..., outcome: _Optional[str] = ..., text: _Optional[str] = ..., history: _Optional[_Iterable[float]] = ...) -> None: ...

class SolveResponse(_message.Message):
    __slots__ = ("id", "task", "model", "text", "residual", "converged", "verified", "finish_reason", "iterations", "nfe", "layers", "breadth", "agreement", "seed", "cached", "timing_ms", "trajectories", "confidence")
    ID_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    RESIDUAL_FIELD_NUMBER: _ClassVar[int]
    CONVERGED_FIELD_NUMBER: _ClassVar[int]
    VERIFIED_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    ITERATIONS_FIELD_NUMBER: _ClassVar[int]
    NFE_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    BREADTH_FIELD_NUMBER: _ClassVar[int]
    AGREEMENT_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    CACHED_FIELD_NUMBER: _ClassVar[int]
    TIMING_MS_FIELD_NUMBER: _ClassVar[int]
    TRAJECTORIES_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    id: str
    task: str
    model: str
    text: str
    residual: float
    converged: bool
    verified: bool
    finish_reason: str
    iterations: int
    nfe: int
    layers: int
    breadth: BreadthCount
    agreement: float
    seed: int
    cached: bool
    timing_ms: Timing
    trajectories: _containers.RepeatedCompositeFieldContainer[Trajectory]
    confidence: float
    def __init__(self, id: _Optional[str] = ..., task: _Optional[str] = ..., model: _Optional[str] = ..., text: _Optional[str] = ..., residual: _Optional[float] = ..., converged: _Optional[bool] = ..., verified: _Optional[bool] = ..., finish_reason: _Optional[str] = ..., iterations: _Optional[int] = ..., nfe: _Optional[int] = ..., layers: _Optional[int] = ..., breadth: _Optional[_Union[BreadthCount, _Mapping]] = ..., agreement: _Optional[float] = ..., seed: _Optional[int] = ..., cached: _Optional[bool] = ..., timing_ms: _Optional[_Union[Timing, _Mapping]] = ..., trajectories: _Optional[_Iterable[_Union[Trajectory, _Mapping]]] = ..., confidence: _Optional[float] = ...) -> None: ...

class SolveStreamRequest(_message.Message):
    __slots__ = ("request",)
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    request: SolveRequest
    def __init__(self, request: _Optional[_Union[SolveRequest, _Mapping]] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("iteration", "residual", "text")
    ITERATION_FIELD_NUMBER: _ClassVar[int]
    RESIDUAL_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    iteration: int
    residual: float
    text: str
    def __init__(self, iteration: _Optional[int] = ..., residual: _Optional[float] = ..., text: _Optional[str] = ...) -> None: ...

class SolveStreamResponse(_message.Message):
    __slots__ = ("progress", "result")
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    progress: Progress
    result: SolveResponse
    def __init__(self, progress: _Optional[_Union[Progress, _Mapping]] = ..., result: _Optional[_Union[SolveResponse, _Mapping]] = ...) -> None: ...

class SolveBatchRequest(_message.Message):
    __slots__ = ("requests",)
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[SolveRequest]
    def __init__(self, requests: _Optional[_Iterable[_Union[SolveRequest, _Mapping]]] = ...) -> None: ...

class Fault(_message.Message):
    __slots__ = ("field", "place", "message")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    PLACE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    field: str
    place: str
    message: str
    def __init__(self, field: _Optional[str] = ..., place: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class ItemError(_message.Message):
    __slots__ = ("code", "detail", "faults")
    CODE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    FAULTS_FIELD_NUMBER: _ClassVar[int]
    code: str
    detail: str
    faults: _containers.RepeatedCompositeFieldContainer[Fault]
    def __init__(self, code: _Optional[str] = ..., detail: _Optional[str] = ..., faults: _Optional[_Iterable[_Union[Fault, _Mapping]]] = ...) -> None: ...

class ItemResult(_message.Message):
    __slots__ = ("answer", "error")
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    answer: SolveResponse
    error: ItemError
    def __init__(self, answer: _Optional[_Union[SolveResponse, _Mapping]] = ..., error: _Optional[_Union[ItemError, _Mapping]] = ...) -> None: ...

class SolveBatchResponse(_message.Message):
    __slots__ = ("results",)
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[ItemResult]
    def __init__(self, results: _Optional[_Iterable[_Union[ItemResult, _Mapping]]] = ...) -> None: ...

class SubmitJobRequest(_message.Message):
    __slots__ = ("requests", "idempotency_key")
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[SolveRequest]
    idempotency_key: str
    def __init__(self, requests: _Optional[_Iterable[_Union[SolveRequest, _Mapping]]] = ..., idempotency_key: _Optional[str] = ...) -> None: ...

class Job(_message.Message):
    __slots__ = ("id", "state", "done", "total", "created_ms", "ended_ms", "expires_ms", "error", "results")
    ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    CREATED_MS_FIELD_NUMBER: _ClassVar[int]
    ENDED_MS_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_MS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    id: str
    state: JobState
    done: int
    total: int
    created_ms: int
    ended_ms: int
    expires_ms: int
    error: str
    results: _containers.RepeatedCompositeFieldContainer[ItemResult]
    def __init__(self, id: _Optional[str] = ..., state: _Optional[_Union[JobState, str]] = ..., done: _Optional[int] = ..., total: _Optional[int] = ..., created_ms: _Optional[int] = ..., ended_ms: _Optional[int] = ..., expires_ms: _Optional[int] = ..., error: _Optional[str] = ..., results: _Optional[_Iterable[_Union[ItemResult, _Mapping]]] = ...) -> None: ...

class SubmitJobResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: Job
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ...) -> None: ...

class GetJobRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class GetJobResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: Job
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ...) -> None: ...

class CancelJobRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class CancelJobResponse(_message.Message):
    __slots__ = ("job",)
    JOB_FIELD_NUMBER: _ClassVar[int]
    job: Job
    def __init__(self, job: _Optional[_Union[Job, _Mapping]] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "task", "sizes", "parameters", "digest", "tolerance", "description", "license")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    SIZES_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    TOLERANCE_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    LICENSE_FIELD_NUMBER: _ClassVar[int]
    name: str
    task: str
    sizes: _containers.RepeatedScalarFieldContainer[str]
    parameters: int
    digest: str
    tolerance: float
    description: str
    license: str
    def __init__(self, name: _Optional[str] = ..., task: _Optional[str] = ..., sizes: _Optional[_Iterable[str]] = ..., parameters: _Optional[int] = ..., digest: _Optional[str] = ..., tolerance: _Optional[float] = ..., description: _Optional[str] = ..., license: _Optional[str] = ...) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    def __init__(self, models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ...) -> None: ...
