"""A file as the reference implementation's users have it: its sections and spellings, its keys in it, other shapes."""

from typing import Any

from shared.config import ConfigInvalid, Configuration, Problem, parse


def reference() -> dict[str, Any]:
    """Return a fresh reference-style file: keys in it, camelCase, no parameters, an addon that nobody defined."""
    chat = {"provider": "openrouter", "config": {"temperature": 0.7, "max_tokens": 500, "top_p": 0.9}}
    roles = {
        "categorizer_ai": "meta-llama/llama-3.1-8b-instruct",
        "fast_ai": "openai/gpt-oss-safeguard-20b",
        "medium_ai": "meta-llama/llama-3.3-70b-instruct",
        "thinking_ai": "moonshotai/kimi-k2-thinking",
        "thinking_fast_response_ai": "meta-llama/llama-3.1-8b-instruct",
        "finished_task_ai": "meta-llama/llama-3.1-8b-instruct",
        "ai_workers_failed_ai": "meta-llama/llama-3.1-8b-instruct",
        "code_ai": "moonshotai/kimi-k2-thinking",
        "sub_master_ai": "moonshotai/kimi-k2-thinking",
        "image_analysis_ai": "google/gemini-2.5-pro",
        "image_model": "x-ai/grok-4-fast",
    }
    models: dict[str, Any] = {role: {**chat, "model": model, "purpose": role} for role, model in roles.items()}
    models["imagen_4_ultra"] = {
        "provider": "google_ai",
        "model": "imagen-4-ultra",
        "purpose": "images",
        "config": {"aspect_ratio": "1:1", "enhance_prompt": True, "num_images": 1},
    }
    models["veo_3_1"] = {
        "provider": "google_ai",
        "model": "veo-3.1",
        "purpose": "video",
        "config": {"duration": 8, "aspect_ratio": "16:9", "resolution": "1080p", "generate_audio": True},
    }
    return {
        "system": {
            "name": "AI Orchestration System",
            "version": "1.0.0",
            "environment": "production",
            "region": "eu-west-1",
            "logLevel": "INFO",
        },
        "api_keys": {"openrouter": "sk-or-v1-0123456789abcdef", "google_ai": "YOUR_GOOGLE_AI_API_KEY"},
        "api_endpoints": {
            "openrouter": "https://openrouter.ai/api/v1/chat/completions",
            "google_imagen": "https://generativelanguage.googleapis.com/v1beta/models/imagen-4-ultra:predict",
            "google_veo": "https://generativelanguage.googleapis.com/v1beta/models/veo-3.1:predictLongRunning",
        },
        "orchestration": {
            "maxConcurrentWorkflows": 1000,
            "defaultTimeoutSeconds": 300,
            "maxRetries": 3,
            "checkpointInterval": 5,
            "stateRetentionDays": 30,
        },
        "queuing": {
            "highPriorityRatio": 0.6,
            "mediumPriorityRatio": 0.3,
            "lowPriorityRatio": 0.1,
            "maxQueueDepth": 10000,
        },
        "scaling": {"minInstances": 3, "maxInstances": 20, "scaleUpThreshold": 0.75, "scaleDownThreshold": 0.25},
        "ai_models": models,
        "base_ai_prompts": {
            "categorizer_ai": {
                "system_prompt": "Answer with one letter: L, M or H.",
                "examples": [{"input": "What is 2+2?", "output": "M"}, {"user": "Plan a campaign", "assistant": "H"}],
            },
            "medium_ai": {"system_prompt": "You are helpful."},
        },
        "prompt_addons": {"blog_writing": "Write like a blogger.", "executive_summary": "Summarise for an executive."},
        "request_flow": {
            "warmup": {"enabled": True, "models": ["categorizer_ai", "fast_ai"], "trigger": "chatbox_open"},
            "image_detection": {"enabled": True, "force_model": "image_model", "condition": "contains_image"},
            "context_limits": {"force_thinking_ai": 100000, "force_gemini_pro": 200000, "deny_request": 900000},
            "categorization": {
                "L": {"model": "thinking_ai", "description": "heavy"},
                "M": {"model": "medium_ai", "description": "everyday"},
                "H": {
                    "model": "thinking_ai",
                    "description": "orchestrated",
                    "orchestration": True,
                    "fast_response_model": "thinking_fast_response_ai",
                },
            },
        },
        "workflow_templates": {
            "research_report": {
                "description": "A report",
                "workflow": [
                    {
                        "type": "linear",
                        "tasks": [
                            {
                                "model": "thinking_ai",
                                "prompt": "Research {topic} for {audience}",
                                "output_variable": "research",
                                "config": {"temperature": 0.3, "addons": ["research_assistant", "executive_summary"]},
                            }
                        ],
                    },
                    {
                        "type": "inline",
                        "tasks": [
                            {"model": "medium_ai", "prompt": "Report on {research}", "output_variable": "report"}
                        ],
                    },
                ],
            }
        },
        "model_fallbacks": {"thinking_ai": ["sub_master_ai", "medium_ai"], "imagen_4_ultra": ["image_model"]},
        "error_handling": {
            "error_types": {
                "transient": {"description": "network", "strategy": "retry", "retries": 5},
                "fatal": {"description": "unrecoverable", "strategy": "degrade", "retries": 0},
            },
            "retry_config": {
                "base_delay_ms": 1000,
                "backoff_factor": 2,
                "max_delay_ms": 30000,
                "jitter": True,
                "retryable_status_codes": [429, 500, 503, 504],
            },
            "circuit_breaker": {"failure_threshold": 5, "timeout_seconds": 60, "half_open_max_calls": 3},
        },
        "rate_limiting": {
            "openrouter": {
                "requests_per_minute": 60,
                "tokens_per_minute": 500000,
                "algorithm": "token_bucket",
                "burst_allowance": 10,
            },
            "google_ai": {"requests_per_minute": 60, "requests_per_day": 1500},
        },
        "monitoring": {
            "metrics": ["requests", "errors"],
            "logging": {"level": "INFO", "format": "json"},
            "alerting": {"thresholds": {"error_rate": 0.05}, "channels": {"email": {}, "webhook": {}}},
        },
    }


def read(document: object) -> tuple[Configuration, tuple[str, ...]]:
    """Parse a document that is not text yet."""
    import json

    return parse(json.dumps(document))


def problems(document: object) -> dict[str, Problem]:
    """Return what is wrong with a document by path; fails when nothing is."""
    try:
        read(document)
    except ConfigInvalid as invalid:
        return {problem.path: problem for problem in invalid.problems}
    raise AssertionError("nothing is wrong with it")
