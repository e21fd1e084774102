"""Google's Gemini API: texts and images by `generateContent`, Imagen's `predict`, Veo's long-running operations."""
