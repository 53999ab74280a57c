//! Seeded whole-cluster simulation. Never touches a real engine.
