-- A database each; the first, headwater, is made by the image.
CREATE DATABASE mlflow;
CREATE DATABASE prefect;
