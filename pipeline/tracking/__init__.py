"""The record in MLflow. No other room imports MLflow."""
