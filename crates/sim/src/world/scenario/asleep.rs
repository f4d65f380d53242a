//! What happens while a phone is away for long.
