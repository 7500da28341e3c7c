"""Train as the classroom notebook does, in PyTorch: what `scripts/benchmark.py` compares with.

python scripts/notebook_baseline.py [--epochs N]

Every image is made a PIL image and then a tensor on its own, as `torchvision.datasets.MNIST` and
`ToTensor` do it, by a `DataLoader` with its default settings.
"""

import argparse

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from rnn_mnist import load


class Digits(Dataset):
    def __init__(self, split: str):
        data = load("mnist", split)
        self.images, self.labels = torch.tensor(data.images), torch.tensor(data.labels).long()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = Image.fromarray(self.images[index].numpy())
        tensor = torch.from_numpy(np.array(image, np.uint8)).view(28, 28, 1).permute(2, 0, 1)
        return tensor.contiguous().to(torch.float32).div(255), int(self.labels[index])


class LSTMnist(torch.nn.Module):
    """The classroom notebook's network; returns logits, whose log-softmax is its output."""

    def __init__(self, hidden_size: int = 20) -> None:
        super().__init__()
        self.lstm = torch.nn.LSTM(28, hidden_size, batch_first=True)
        self.hidden2digits = torch.nn.Linear(hidden_size, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (B, 28, 28) -> logits (B, 10)."""
        _, (hidden, _) = self.lstm(images)
        return self.hidden2digits(hidden[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=10)
    epochs = parser.parse_args().epochs
    torch.manual_seed(0)
    train_loader = DataLoader(Digits("train"), batch_size=100, shuffle=True)
    test_loader = DataLoader(Digits("test"), batch_size=100)
    model, loss_function = LSTMnist(), torch.nn.NLLLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for epoch in range(1, epochs + 1):
        model.train()
        running = 0.0
        for batch, (images, labels) in enumerate(train_loader, 1):
            optimizer.zero_grad()
            loss = loss_function(torch.log_softmax(model(images.squeeze(1)), dim=1), labels)
            loss.backward()
            optimizer.step()
            running += loss.item()
            if batch % 100 == 0:
                print(f"epoch {epoch}, batch {batch}: loss {running / 100:.4f}", flush=True)
                running = 0.0
        model.eval()
        correct = 0
        with torch.no_grad():
            for images, labels in test_loader:
                correct += (model(images.squeeze(1)).argmax(1) == labels).sum().item()
        print(f"epoch {epoch}: test accuracy {correct / len(test_loader.dataset):.2%}", flush=True)


if __name__ == "__main__":
    main()
