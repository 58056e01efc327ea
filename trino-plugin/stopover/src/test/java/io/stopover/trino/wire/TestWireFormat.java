/*
 * Licensed under the Apache License, Version 2.0 (the "License");
 * you may not use this file except in compliance with the License.
 * You may obtain a copy of the License at
 *
 *     http://www.apache.org/licenses/LICENSE-2.0
 *
 * Unless required by applicable law or agreed to in writing, software
 * distributed under the License is distributed on an "AS IS" BASIS,
 * WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
 * See the License for the specific language governing permissions and
 * limitations under the License.
 */
package io.stopover.trino.wire;

import io.airlift.slice.Slices;
import org.junit.jupiter.api.Test;

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.EOFException;
import java.io.IOException;
import java.io.InputStream;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

/** The encoders produce the golden files, and the decoders reject every deviation from them. */
class TestWireFormat
{
    private static final byte[] RUN = run();

    @Test
    void testBatchMatchesTheGoldenFile()
            throws IOException
    {
        PageBatch batch = new PageBatch(List.of(
                SinkPage.of(65535, Slices.utf8Slice("omega")),
                SinkPage.of(0, Slices.utf8Slice("alpha")),
                SinkPage.of(3, Slices.wrappedBuffer(new byte[1])),
                SinkPage.of(0, Slices.wrappedBuffer(RUN))));
        assertThat(written(batch)).isEqualTo(golden("batch-v1.bin"));
        assertThat(batch.frameBytes()).isEqualTo(golden("batch-v1.bin").length);

        SinkTotals totals = new SinkTotals();
        totals.add(batch);
        assertThat("{\"batches\": %s, \"pages\": %s, \"bytes\": %s, \"checksum\": %s}"
                .formatted(totals.batches(), totals.pages(), totals.bytes(), totals.checksum()))
                .isEqualTo(new String(golden("batch-v1.finish.json"), UTF_8));
    }

    @Test
    void testGoldenResponseIsDecoded()
            throws IOException
    {
        Recorder recorder = new Recorder();
        read(golden("read-v1.bin"), recorder);
        assertThat(recorder.blocks).containsExactly("3/7/1", "3/1048575/127");
        assertThat(recorder.pages)
                .containsExactly("first".getBytes(UTF_8), "second page".getBytes(UTF_8), RUN);
        assertThat(recorder.reserved).isEqualTo(5 + 11 + 256);
    }

    @Test
    void testErrorRecordFailsTheRead()
            throws IOException
    {
        Recorder recorder = new Recorder();
        assertThatThrownBy(() -> read(golden("read-error-v1.bin"), recorder))
                .isInstanceOf(IOException.class)
                .hasMessageContaining("urn:stopover:problem:data-lost");
        assertThat(recorder.pages).hasSize(2);
    }

    @Test
    void testEveryTruncationIsAnError()
            throws IOException
    {
        byte[] whole = golden("read-v1.bin");
        for (int length = 0; length < whole.length; length++) {
            byte[] part = Arrays.copyOf(whole, length);
            assertThatThrownBy(() -> read(part, new Recorder())).isInstanceOf(EOFException.class);
        }
    }

    @Test
    void testEveryFlippedBitIsAnError()
            throws IOException
    {
        byte[] whole = golden("read-v1.bin");
        for (int bit = 0; bit < whole.length * 8; bit++) {
            byte[] damaged = whole.clone();
            damaged[bit / 8] ^= (byte) (1 << (bit % 8));
            Recorder recorder = new Recorder();
            assertThatThrownBy(() -> read(damaged, recorder)).as("bit %s", bit)
                    .isInstanceOf(IOException.class);
            assertThat(List.of("first", "second page", new String(RUN, UTF_8))
                    .subList(0, recorder.pages.size()))
                    .containsExactlyElementsOf(
                            recorder.pages.stream().map(page -> new String(page, UTF_8)).toList());
        }
    }

    @Test
    void testDataAfterTheEndRecordIsAnError()
            throws IOException
    {
        byte[] whole = golden("read-v1.bin");
        assertThatThrownBy(() -> read(Arrays.copyOf(whole, whole.length + 1), new Recorder()))
                .isInstanceOf(MalformedStreamException.class)
                .hasMessageContaining("after the end record");
    }

    @Test
    void testOversizedPageNamesTheProperty()
            throws IOException
    {
        byte[] whole = golden("read-v1.bin");
        assertThatThrownBy(
                () -> new ReadStream(
                new ByteArrayInputStream(whole), 4, new Recorder(), _ ->
                new IOException()).readFully())
                .hasMessageContaining("stopover.max-page-size");
    }

    @Test
    void testPagesOfAllSizesAreWrittenInOrder()
            throws IOException
    {
        Random random = new Random(7);
        List<SinkPage> pages = new ArrayList<>();
        ByteArrayOutputStream expected = new ByteArrayOutputStream();
        for (int i = 0; i < 300; i++) {
            byte[] bytes = new byte[1 + random.nextInt(i % 10 == 0 ? 100_000 : 2_000)];
            random.nextBytes(bytes);
            SinkPage page = SinkPage.of(5, Slices.wrappedBuffer(bytes));
            pages.add(page);
            expected.writeBytes(written(new PageBatch(List.of(page))));
        }
        assertThat(written(new PageBatch(pages))).isEqualTo(expected.toByteArray());
    }

    private static byte[] written(PageBatch batch)
            throws IOException
    {
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        batch.writeTo(out);
        return out.toByteArray();
    }

    private static void read(byte[] bytes, Recorder recorder)
            throws IOException
    {
        new ReadStream(
                new ByteArrayInputStream(bytes), 1 << 20, recorder, problem ->
                new IOException(new String(problem, UTF_8)))
                .readFully();
    }

    private static byte[] golden(String name)
            throws IOException
    {
        try (InputStream in = TestWireFormat.class.getResourceAsStream("/golden/" + name)) {
            return in.readAllBytes();
        }
    }

    private static byte[] run()
    {
        byte[] run = new byte[256];
        for (int i = 0; i < run.length; i++) {
            run[i] = (byte) i;
        }
        return run;
    }

    private static final class Recorder
            implements ReadStream.Visitor
    {
        private final List<String> blocks = new ArrayList<>();
        private final List<byte[]> pages = new ArrayList<>();
        private long reserved;

        @Override
        public void block(int partition, int task, int attempt)
        {
            blocks.add(partition + "/" + task + "/" + attempt);
        }

        @Override
        public void reserve(int bytes)
        {
            reserved += bytes;
        }

        @Override
        public void page(byte[] page)
        {
            pages.add(page);
        }

        @Override
        public void release(int bytes)
        {
            reserved -= bytes;
        }
    }
}
